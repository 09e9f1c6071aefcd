"""An error as words for a person: the cause and the next step. Holds text only, so that it keeps nothing else alive."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from workbench.errors import (
    BackendUnavailableError,
    ConfigError,
    DownloadError,
    EngineStoppedError,
    ModelFormatError,
    ModelNotFoundError,
    OutOfMemoryError,
    PluginError,
    PluginVerificationError,
    PromptTooLongError,
    RequestError,
    UnsafeModelError,
    WorkbenchError,
)

__all__ = ["Failure"]

_NEXT_STEPS: dict[type[BaseException], str] = {
    ModelNotFoundError: "Check the spelling, or choose another model.",
    ModelFormatError: "The files are damaged or incomplete: fetch the model again, or choose another.",
    UnsafeModelError: "Choose safetensors or GGUF files. If you trust the author, load it in a cell with the flag "
    "named above and hand it to the panel.",
    DownloadError: "Check the network and try again; nothing half-made was kept.",
    OutOfMemoryError: "Choose a smaller model or precision, or unload what else is loaded.",
    MemoryError: "Choose a smaller model or precision, or unload what else is loaded.",
    BackendUnavailableError: "Choose another backend.",
    PluginError: "Look at `workbench plugins info NAME`, or do without the plugin.",
    PluginVerificationError: "Do not use this file: get the plugin again from whoever signs it.",
    PromptTooLongError: "Shorten the message, start a new chat, or load the model with a longer context.",
    EngineStoppedError: "Load the model again.",
    RequestError: "Change what the message names and send again.",
    ConfigError: "Change what the message names and try again.",
    WorkbenchError: "Try again; if it stays, the technical details say where it happened.",
    BaseException: "This was not expected. The technical details help whoever looks into it.",
}


@dataclass(frozen=True)
class Failure:
    """`cause` and `next_step` are for the user, `details` is the traceback as text, `kind` the name of the error."""

    kind: str
    cause: str
    next_step: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Put an error into words. The error, its frames and what they hold are not kept."""
        return cls(
            kind=type(error).__name__,
            cause=_cause(error),
            next_step=_next_step(error),
            details="".join(traceback.format_exception(error)),
        )

    def as_dict(self) -> dict[str, str]:
        """The same as plain JSON values."""
        return {"kind": self.kind, "cause": self.cause, "next_step": self.next_step, "details": self.details}


def _cause(error: BaseException) -> str:
    message = str(error).strip() or type(error).__name__
    if isinstance(error, WorkbenchError):
        return message
    return f"{type(error).__name__}: {message}"


def _next_step(error: BaseException) -> str:
    if isinstance(error, OutOfMemoryError) and error.would_fit:
        return f"What would fit: {'; '.join(error.would_fit)}."
    return next(_NEXT_STEPS[kind] for kind in type(error).__mro__ if kind in _NEXT_STEPS)
