"""Asks and answers in the words of the OpenAI API. Plain functions over JSON values."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from dashboards.sources.base import ChatAsk
from workbench.conversation import Alternative, ScoredToken
from workbench.conversation.token_heat import texts_of
from workbench.engine import SamplingParams, StructureKind, StructureSpec

__all__ = ["MOST_ALTERNATIVES", "chat_body", "completion_body", "scored_of_chat", "scored_of_completion"]

# Sent under other names, or not at all.
# Of a completion's tokens, by OpenAI's rule; a chat may ask for 20.
MOST_ALTERNATIVES = 5
_OWN_WAY = frozenset({"structure", "cache_salt", "logprobs", "top_logprobs", "prompt_logprobs", "temperature", "n"})


def chat_body(ask: ChatAsk, model: str) -> dict[str, Any]:
    """The body of a streamed chat completion."""
    body = {**_shared(ask.params, model), "messages": list(ask.messages), **_structure(ask.params.structure)}
    if ask.params.logprobs:
        body |= {"logprobs": True, "top_logprobs": ask.params.top_logprobs}
    if ask.functions:
        body["tools"] = [function.as_tool() for function in ask.functions]
        # A small model that must call would go on calling until its tokens are used up.
        more = {"tool_choice": "required", "parallel_tool_calls": False} if ask.must_call else {"tool_choice": "auto"}
        body |= more
    if ask.continues:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if ask.thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": ask.thinking}
    return body


def completion_body(ask: ChatAsk, model: str) -> dict[str, Any]:
    """The body of a streamed text completion."""
    body = {**_shared(ask.params, model), "prompt": ask.prompt, **_structure(ask.params.structure)}
    if ask.params.logprobs:
        body["logprobs"] = min(ask.params.top_logprobs, MOST_ALTERNATIVES)
    return body


def scored_of_chat(logprobs: dict[str, Any]) -> tuple[ScoredToken, ...]:
    """Heat-map tokens of a chat completion's `logprobs`."""
    entries = logprobs.get("content") or []
    texts = texts_of([_bytes(entry) for entry in entries])
    return tuple(
        ScoredToken(text, entry["logprob"], tuple(_alternative(top) for top in entry.get("top_logprobs") or ()))
        for text, entry in zip(texts, entries, strict=True)
    )


def scored_of_completion(logprobs: dict[str, Any]) -> tuple[ScoredToken, ...]:
    """Heat-map tokens of a text completion's `logprobs`."""
    texts = [_unspelled(token) for token in logprobs["tokens"]]
    tops = logprobs.get("top_logprobs") or [None] * len(texts)
    return tuple(
        ScoredToken(text, logprob, _alternatives(top))
        for text, logprob, top in zip(texts, logprobs["token_logprobs"], tops, strict=True)
    )


def _shared(params: SamplingParams, model: str) -> dict[str, Any]:
    """Settings that chat and text completions share: those that differ from ours, as others have other defaults."""
    defaults = SamplingParams()
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": params.temperature,
    }
    for one in fields(params):
        value = getattr(params, one.name)
        if one.name in _OWN_WAY or (value == getattr(defaults, one.name) and one.name != "max_tokens"):
            continue
        if value is not None:
            body[one.name] = list(value) if isinstance(value, tuple) else value
    if "logit_bias" in body:
        body["logit_bias"] = {str(token_id): bias for token_id, bias in params.logit_bias.items()}
    return body


def _structure(structure: StructureSpec | None) -> dict[str, Any]:
    if structure is None:
        return {}
    if structure.kind is StructureKind.JSON_OBJECT:
        return {"response_format": {"type": "json_object"}}
    if structure.kind is StructureKind.JSON_SCHEMA:
        schema = {"name": "answer", "schema": json.loads(structure.text)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {structure.kind.value: structure.text}}


def _alternatives(top: dict[str, float] | None) -> tuple[Alternative, ...]:
    ordered = sorted((top or {}).items(), key=lambda item: -item[1])
    return tuple(Alternative(_unspelled(token), logprob) for token, logprob in ordered)


def _alternative(top: dict[str, Any]) -> Alternative:
    return Alternative(_bytes(top).decode(errors="replace"), top["logprob"])


def _bytes(entry: dict[str, Any]) -> bytes:
    spelled = entry.get("bytes")
    return entry["token"].encode() if spelled is None else bytes(spelled)


def _unspelled(token: str) -> str:
    """Tokens that are no text are spelled "bytes:\\xe2..." in text completions."""
    if not token.startswith("bytes:"):
        return token
    return bytes(int(part, 16) for part in token[6:].split("\\x") if part).decode(errors="replace")
