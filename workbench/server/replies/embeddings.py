"""Embeddings: texts through the engine one after the other, charged like prompts."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from workbench.errors import WorkbenchError
from workbench.server.caller import Call
from workbench.server.errors import api_error, invalid
from workbench.server.protocol.embeddings import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from workbench.server.served_model import ServedModel
from workbench.server.services import Services

__all__ = ["embed_all"]


async def embed_all(services: Services, call: Call, model: ServedModel, body: EmbeddingRequest) -> EmbeddingList:
    """All embeddings. Raises a 400 for a model that makes none, or for a text that does not fit.

    Between two texts the engine goes on with its batch, so a long list delays nobody; when the caller is cancelled
    the rest is not computed.
    """
    _check(body, model, services.settings.wire.max_prompts)
    call.model = model.model_id
    with ExitStack() as stack:
        stack.enter_context(services.rates.in_flight(call))
        stack.enter_context(services.host.in_use())
        try:
            texts = await services.text_pool.run(lambda: _encoded(body, model))
            call.num_prompt_tokens = sum(map(len, texts))
            services.rates.charge_prompt(call, call.num_prompt_tokens)
            vectors = await _computed(services, call, model, texts)
        except WorkbenchError as error:
            raise api_error(error, param="input") from error
    return EmbeddingList(
        data=[Embedding.of(index, values, body.encoding_format) for index, values in enumerate(vectors)],
        model=model.model_id,
        usage=EmbeddingUsage(prompt_tokens=call.num_prompt_tokens, total_tokens=call.num_prompt_tokens),
    )


async def _computed(services: Services, call: Call, model: ServedModel, texts: list[list[int]]) -> list[list[float]]:
    """The vectors of texts that are charged. What fails costs nothing, as with answers; a client that left pays."""
    try:
        async with services.queue.room(call.key_id, 1):
            return [await asyncio.to_thread(model.llm.embed, ids) for ids in texts]
    except Exception:
        services.rates.charge(call, -call.num_prompt_tokens)
        raise


def _check(body: EmbeddingRequest, model: ServedModel, max_inputs: int) -> None:
    if model.llm.embedding_recipe is None:
        raise invalid(
            f"{model.model_id} generates text and was not trained to make embeddings",
            param="model",
            code="model_does_not_support_embeddings",
        )
    if len(body.inputs) > max_inputs:
        raise invalid(f"{len(body.inputs)} texts are more than the {max_inputs} of one request", param="input")
    size = model.llm.spec.hidden_size
    if body.dimensions not in (None, size):
        raise invalid(
            f"dimensions: this model gives {size} numbers, and an embedding is not cut short", param="dimensions"
        )


def _encoded(body: EmbeddingRequest, model: ServedModel) -> list[list[int]]:
    texts = [model.encode_text(text) if isinstance(text, str) else text for text in body.inputs]
    for ids in texts:
        model.llm.check_embeddable(ids)
    return texts
