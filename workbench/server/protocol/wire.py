"""The rules that all wire models share: exact types, no unknown fields, nothing ignored in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

__all__ = [
    "CACHE_OPTIONS",
    "CACHE_RETENTION",
    "ErrorBody",
    "ErrorDetail",
    "SparseReply",
    "WireReply",
    "WireRequest",
    "WrongField",
]


# OpenAI's defaults for how long beginnings of prompts are kept, for `WireRequest.unsupported`.
CACHE_OPTIONS = ({"mode": "implicit", "ttl": "30m", "prewarm": False},)
CACHE_RETENTION = ("in_memory", "24h")


class WrongField(ValueError):
    """A field that is wrong together with others; the message goes on after its name."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param} {message}")
        self.param = param


class WireRequest(BaseModel):
    """What a caller sends. A field that is not listed is refused.

    `unsupported` lists fields of the API this follows which are not supported, with the values that ask for nothing:
    these are accepted, as is null, and any other value is refused. Of an object any part of the default will do.
    """

    model_config = ConfigDict(strict=True, extra="forbid")
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if k not in cls.unsupported or not _is_default(v, cls.unsupported[k])}


class WireReply(BaseModel):
    """What is sent back."""

    model_config = ConfigDict(ser_json_inf_nan="null")


class SparseReply(WireReply):
    """What is sent back without the fields that are None, apart from those named in `kept`."""

    kept: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _leave_out_none(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {k: v for k, v in serialize(self).items() if v is not None or k in self.kept}


class ErrorDetail(WireReply):
    """What went wrong. `code` is a word for programs, `param` names the field."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(WireReply):
    """Every answer other than success."""

    error: ErrorDetail


def _is_default(value: Any, defaults: tuple[Any, ...]) -> bool:
    if value is None:
        return True
    # 1 == True in Python, but not on the wire.
    alike = [default for default in defaults if type(default) is type(value)]
    if isinstance(value, dict):
        # Options that are left out, or null, ask for nothing either.
        return any(all(option in (None, default.get(name)) for name, option in value.items()) for default in alike)
    return value in alike
