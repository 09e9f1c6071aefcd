"""Models on the wire."""

from __future__ import annotations

from typing import Literal

from workbench.server.protocol.wire import WireReply

__all__ = ["ModelInfo", "ModelList"]


class ModelInfo(WireReply):
    """A model that can be asked. `max_model_len` counts tokens of prompt and answer together."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["workbench"] = "workbench"
    max_model_len: int


class ModelList(WireReply):
    """The models that can be asked."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]
