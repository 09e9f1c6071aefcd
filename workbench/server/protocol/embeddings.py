"""Embeddings on the wire."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from workbench.server.protocol.completions import Prompt, prompts_of
from workbench.server.protocol.wire import WireReply, WireRequest, WrongField

__all__ = ["Embedding", "EmbeddingList", "EmbeddingRequest", "EmbeddingUsage"]


class EmbeddingRequest(WireRequest):
    """Texts to embed, or their token ids."""

    model_config = {"json_schema_extra": {"examples": [{"input": ["a text", "another one"]}]}}

    input: Prompt = Field(description="A text, token ids, or a list of either.")
    model: str | None = Field(None, max_length=512, description="Id of the loaded model; the loaded one if left out.")
    model_name: str | None = Field(None, max_length=512, description="Another name for `model`.")
    revision: str | None = Field(None, max_length=128, description="Revision of the loaded model, if it has one.")
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = Field(
        None, description="Only the number that the model gives: an embedding is not cut short."
    )
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64 is of float32s.")
    user: str | None = Field(None, max_length=512, description="Accepted and not used.")

    @model_validator(mode="after")
    def _check_names(self) -> EmbeddingRequest:
        if self.model and self.model_name and self.model != self.model_name:
            raise WrongField("model", "and model_name differ: give one of the two")
        return self

    @property
    def model_id(self) -> str | None:
        """The model that is asked for, None for whichever is loaded."""
        return self.model or self.model_name

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
