"""Embeddings on the wire. No model that runs here makes them, so only the request has a form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workbench.server.protocol.completions import Prompt
from workbench.server.protocol.wire import WireReply, WireRequest

__all__ = ["EmbeddingList", "EmbeddingRequest"]


class EmbeddingRequest(WireRequest):
    """Texts to embed."""

    input: Prompt
    model: str | None = Field(None, max_length=512)
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = Field(None, max_length=512)


class EmbeddingList(WireReply):
    """The embeddings."""

    object: Literal["list"] = "list"
    data: list[dict]
    model: str
