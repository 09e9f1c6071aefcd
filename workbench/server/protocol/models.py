"""Models on the wire: which there are, and having another one loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workbench.server.protocol.model_choice import check_one_name
from workbench.server.protocol.wire import WireReply, WireRequest, WrongField

__all__ = ["LoadProgress", "LoadRequest", "LoadedModel", "ModelInfo", "ModelList", "UnloadRequest", "UnloadedModel"]


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


class LoadRequest(WireRequest):
    """A model to load in place of the present one."""

    model_config = {"json_schema_extra": {"examples": [{"model": "default"}]}}

    model: str | None = Field(None, min_length=1, max_length=512)
    model_name: str | None = Field(None, min_length=1, max_length=512, description="Another name for `model`.")
    revision: str | None = Field(None, min_length=1, max_length=128, description="Of a model from a hub.")
    stream: bool | None = Field(None, description="Report progress as server-sent events.")

    @model_validator(mode="after")
    def _check_name(self) -> LoadRequest:
        if not self.model and not self.model_name:
            raise WrongField("model", "is missing")
        check_one_name(self.model, self.model_name)
        return self

    @property
    def name(self) -> str:
        """The model that is asked for."""
        # `_check_name` has seen to one of them.
        return self.model or self.model_name or ""


class UnloadRequest(WireRequest):
    """Which model to unload: the present one, whose name may be given so that no other one goes by mistake."""

    model: str | None = Field(None, min_length=1, max_length=512)
    model_name: str | None = Field(None, min_length=1, max_length=512, description="Another name for `model`.")
    stream: bool | None = Field(
        None, description="Answer as server-sent events, with comments while it takes its time."
    )

    @model_validator(mode="after")
    def _check_name(self) -> UnloadRequest:
        check_one_name(self.model, self.model_name)
        return self

    @property
    def name(self) -> str | None:
        """The model that is meant; None for whichever is loaded."""
        return self.model or self.model_name


class LoadedModel(WireReply):
    """The model is ready."""

    status: Literal["loaded"] = "loaded"
    model: str
    model_name: str
    revision: str | None


class LoadProgress(WireReply):
    """How far a load is. `completed` of `total` count `unit`; `total` is null while unknown."""

    status: Literal["loading"] = "loading"
    stage: str
    completed: int
    total: int | None
    unit: str


class UnloadedModel(WireReply):
    """No model is loaded any more."""

    status: Literal["unloaded"] = "unloaded"
    freed_bytes: dict[str, int]
