"""Which model a request is for, in OpenAI's words and in those of the documented surface."""

from __future__ import annotations

from pydantic import Field, model_validator

from workbench.server.protocol.wire import WireRequest, WrongField

__all__ = ["ModelRequest", "check_one_name"]


class ModelRequest(WireRequest):
    """A request that one model answers."""

    model: str | None = Field(None, max_length=512, description="Id of the loaded model; the loaded one if left out.")
    model_name: str | None = Field(None, max_length=512, description="Another name for `model`.")
    revision: str | None = Field(None, max_length=128, description="Revision of the loaded model, if it has one.")

    @model_validator(mode="after")
    def _check_names(self) -> ModelRequest:
        check_one_name(self.model, self.model_name)
        return self

    @property
    def model_id(self) -> str | None:
        """The model that is asked for, None for whichever is loaded."""
        return self.model or self.model_name


def check_one_name(model: str | None, model_name: str | None) -> None:
    """Raise WrongField where the two names of one field say different things."""
    if model and model_name and model != model_name:
        raise WrongField("model", "and model_name differ: give one of the two")
