"""Errors as the OpenAI API words them. The only place that knows HTTP status codes of our exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from starlette.exceptions import HTTPException

from workbench import errors
from workbench.engine import SamplingParams
from workbench.errors import (
    BackendUnavailableError,
    ConfigError,
    DownloadError,
    EngineStoppedError,
    LoadCancelled,
    ModelFormatError,
    ModelNotFoundError,
    OutOfMemoryError,
    OverloadedError,
    PromptTooLongError,
    RequestAborted,
    RequestError,
    UnsafeModelError,
    WorkbenchError,
)

__all__ = ["ApiError", "api_error", "invalid", "load_error", "unknown_parameter", "validation_error"]

_MAX_MESSAGE_CHARS = 500
_MAX_PARAM_CHARS = 100
_RETRY_AFTER_S = "2"

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    507: "insufficient_memory_error",
}


class ApiError(HTTPException):
    """An answer other than success. `code` is a word for programs, `param` the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, _bounded(message, _MAX_MESSAGE_CHARS), dict(headers or {}))
        self.code = code
        self.param = None if param is None else _bounded(param, _MAX_PARAM_CHARS)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400: the request is wrong as it stands."""
    return ApiError(400, message, param=param, code=code)


def unknown_parameter(name: str) -> ApiError:
    """A 400 for a field, or a part of the query string, that means nothing here."""
    name = name[:_MAX_PARAM_CHARS]
    return invalid(f"{name}: is not known or not supported", param=name, code="unknown_parameter")


# The first matching row counts. Own messages speak of what was sent; the others may speak of this machine.
_WORKBENCH_ERRORS: tuple[tuple[type[WorkbenchError], int, str | None, str | None], ...] = (
    (PromptTooLongError, 400, "context_length_exceeded", None),
    (RequestError, 400, None, None),
    (OverloadedError, 503, "overloaded", None),
    (RequestAborted, 503, "request_aborted", "the request was stopped before it finished"),
    (EngineStoppedError, 503, "model_not_loaded", "the model was unloaded or is not running"),
    (OutOfMemoryError, 503, "out_of_memory", "the device ran out of memory: ask for less at once, or try again"),
)

_LOAD_ERRORS: tuple[tuple[type[WorkbenchError], int, str, str], ...] = (
    (ModelNotFoundError, 404, "model_not_found", "there is no such model"),
    (UnsafeModelError, 403, "unsafe_model", "the model's files would run code when loaded, which is not allowed here"),
    (ModelFormatError, 400, "invalid_model", "the model's files are damaged, incomplete or of an unknown kind"),
    (DownloadError, 502, "download_failed", "the model could not be downloaded"),
    (OutOfMemoryError, 507, "out_of_memory", "the model does not fit into the memory that is free"),
    (LoadCancelled, 409, "load_cancelled", "the load was cancelled"),
    (BackendUnavailableError, 400, "backend_unavailable", "the device cannot run this model in this precision"),
    (ConfigError, 400, "invalid_model", "the model cannot be loaded with these settings"),
)


# What our own settings are called where the API has another name.
_API_NAMES = {"structure": "response_format", "json_schema": "response_format"}
_SETTINGS = frozenset(field.name for field in fields(SamplingParams)) | frozenset(_API_NAMES)


def _named_in(message: str) -> str | None:
    """The parameter that an error's words begin with, as in "min_tokens=9: must be ..."; None where there is none."""
    name = re.match(r"[a-z_]+(?==|: )", message)
    return _API_NAMES.get(name[0], name[0]) if name and name[0] in _SETTINGS else None


def api_error(error: BaseException, *, param: str | None = None) -> ApiError:
    """Translate what a request raised. Unknown errors become a 500 that says nothing about their inside."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code, message in _WORKBENCH_ERRORS:
        if isinstance(error, kind):
            headers = {"retry-after": _RETRY_AFTER_S} if kind is OverloadedError else None
            if kind is RequestError:
                param = _named_in(str(error)) or param
            param = param if status == 400 else None
            ended = getattr(error, "ended_process", None)
            if ended is not None:
                message = f"{message}: {ended}"
            return ApiError(status, message or str(error), code=code, param=param, headers=headers)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    return ApiError(500, "the server failed to answer this request; its log has the cause", code="internal_error")


def load_error(kind: str) -> ApiError:
    """Translate the failure of a load, given by the name of its class; paths of this machine stay unsaid."""
    raised = getattr(errors, kind, WorkbenchError)
    for error, status, code, message in _LOAD_ERRORS:
        if issubclass(raised, error):
            return ApiError(status, message, code=code, param="model")
    return ApiError(500, "the model could not be loaded; the server's log has the cause", code="load_failed")


def validation_error(found: Sequence[Mapping[str, Any]]) -> ApiError:
    """A 400 for the first field that is wrong. What was sent there is not repeated."""
    first = found[0]
    location = first["loc"][1:] if first["loc"] and first["loc"][0] in ("body", "query", "path") else first["loc"]
    param = _path(location)
    if first["type"] == "extra_forbidden":
        return unknown_parameter(param)
    if not param and first["type"] in ("missing", "model_type", "model_attributes_type"):
        return invalid("a JSON object is needed as the body", code="invalid_body")
    if first["type"] == "value_error":
        cause = first["ctx"]["error"]
        reason, wrong = str(cause), getattr(cause, "param", None)
        param = ".".join(filter(None, (param, wrong)))
        if wrong:
            return invalid(reason, param=param)
    else:
        reason = first["msg"].replace("Input should be", "must be", 1)
    return invalid(f"{param}: {reason}" if param else reason, param=param or None)


def _path(location: Sequence[str | int]) -> str:
    """ "messages[0].content"; the names of forms, which stand in between in brackets, are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("("):
            part = part.rstrip("_")
            path += f".{part}" if path else part
    return path


def _bounded(text: str, limit: int) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return printable if len(printable) <= limit else printable[: limit - 3] + "..."
