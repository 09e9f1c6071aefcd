"""POST /tokenize and /detokenize."""

from __future__ import annotations

from fastapi import APIRouter, Request

from workbench.server.errors import invalid
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from workbench.server.served_model import ServedModel
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["tokens"])


@router.post("/tokenize", response_model=Tokenized)
async def tokenize(body: TokenizeRequest, request: Request) -> Tokenized:
    """Token ids of a text or a conversation."""
    parts = services(request)
    model = parts.host.served(body.model_id, body.revision)
    return await parts.text_pool.run(lambda: _tokenized(body, model))


@router.post("/detokenize", response_model=Detokenized)
async def detokenize(body: DetokenizeRequest, request: Request) -> Detokenized:
    """The text of token ids."""
    parts = services(request)
    model = parts.host.served(body.model_id, body.revision)
    tokenizer = model.llm.tokenizer
    if any(token_id >= tokenizer.vocab_size for token_id in body.tokens):
        raise invalid(f"tokens: an id is outside the vocabulary of {tokenizer.vocab_size}", param="tokens")
    text = await parts.text_pool.run(lambda: tokenizer.decode(body.tokens, bool(body.skip_special_tokens)))
    return Detokenized(prompt=text)


def _tokenized(body: TokenizeRequest, model: ServedModel) -> Tokenized:
    if body.messages is not None:
        ids = model.encode_chat(body.conversation())
    else:
        assert body.prompt is not None  # one of the two is given
        ids = model.encode_text(body.prompt, body.add_special_tokens is not False)
    names = [model.tokens.text_of(token_id) for token_id in ids] if body.return_token_strs else None
    return Tokenized(count=len(ids), max_model_len=model.llm.max_context, tokens=ids, token_strs=names)
