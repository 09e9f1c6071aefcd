"""`EngineReplica`: one whole model in a Ray Serve replica. Knows nobody but whoever calls its methods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from workbench.engine.launch import EngineFacts
from workbench.engine.messages import Chunk, EngineStats, Request
from workbench.engine.sequence import FinishReason
from workbench.errors import EngineStoppedError, WorkbenchError
from workbench.models import EmbeddingRecipe

__all__ = ["EngineReplica"]


class EngineReplica:
    """Loads a model with the options of `LlamaGPU`. What Ray calls are plain values in, plain values out."""

    def __init__(self, options: dict[str, Any]) -> None:
        # Points up: a replica is what a notebook would load, on whatever this machine has.
        from workbench.llm import LlamaGPU

        self._llm = LlamaGPU(**options)

    def facts(self) -> tuple[EngineFacts, str]:
        """What is known of the engine, and how it computes in words."""
        llm = self._llm
        recipe: EmbeddingRecipe | None = llm.embedding_recipe
        facts = EngineFacts(llm.limits, llm.spec, llm.weight_bytes, recipe, llm.dtype, llm.quantized)
        return facts, f"{llm.backend.name}, {llm.runner_reason}"

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """A request's chunks under its own id; one that failed ends with a chunk that holds the error."""
        try:
            params = replace(request.params, seed=request.seed)
            generation = self._llm.go_on(request.prompt_token_ids, request.sent_token_ids, params)
            async for chunk in generation:
                yield replace(chunk, request_id=request.request_id)
        except WorkbenchError as error:
            for index in range(request.params.n):
                yield Chunk(request.request_id, index, finish_reason=FinishReason.ERROR, error=error)

    def embed(self, token_ids: tuple[int, ...]) -> tuple[float, ...]:
        """One text's embedding."""
        return tuple(self._llm.embed(list(token_ids)))

    def stats(self) -> EngineStats:
        """The engine's figures."""
        return self._llm.stats()

    def check_health(self) -> None:
        """Asked by Ray, which starts this anew if it raises."""
        if not self._llm.is_loaded:
            raise EngineStoppedError("the engine of this replica has stopped")
