"""Embeddings on the wire."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from workbench.server.protocol.completions import Prompt, prompts_of
from workbench.server.protocol.model_choice import ModelRequest
from workbench.server.protocol.wire import WireReply

__all__ = ["Embedding", "EmbeddingList", "EmbeddingRequest", "EmbeddingUsage"]


class EmbeddingRequest(ModelRequest):
    """Texts to embed, or their token ids."""

    model_config = {"json_schema_extra": {"examples": [{"input": ["a text", "another one"]}]}}

    input: Prompt = Field(description="A text, token ids, or a list of either.")
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Only the number that the model gives: an embedding is not cut short."
    )
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64 is of float32s.")
    user: str | None = Field(None, max_length=512, description="Accepted and not used.")

    @property
    def inputs(self) -> list[str | list[int]]:
        """Every text, in order."""
        return prompts_of(self.input)


class Embedding(WireReply):
    """One text's embedding: numbers, or the base64 of their float32s."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str

    @classmethod
    def of(cls, index: int, values: list[float], encoding_format: str | None) -> Embedding:
        if encoding_format == "base64":
            return cls(index=index, embedding=base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode())
        return cls(index=index, embedding=values)


class EmbeddingUsage(WireReply):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(WireReply):
    """The embeddings, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
