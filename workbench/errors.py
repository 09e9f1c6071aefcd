"""The one exception tree. Doors translate it (HTTP status, exit code, banner); nothing below them knows about doors.

WorkbenchError  (documented elsewhere as LlamaGPUError)
├── ConfigError (ValueError)            a setting, name or option is wrong; the message lists what is allowed
├── CacheError                          a cache cannot be read or written; the message says why
├── BackendError                        a backend or device cannot do what was asked
│   ├── BackendUnavailableError         not usable on this machine; the message says why
│   │   └── GPUUnavailableError         a GPU was required and none can be used
│   └── OutOfMemoryError (MemoryError)  needed, free and what would fit are attributes
├── ModelLoadError                      the model could not become ready
│   ├── ModelNotFoundError              no such model, file or folder
│   ├── ModelFormatError                damaged, truncated, contradictory or incomplete files
│   ├── UnsafeModelError                pickle weights or remote code without the explicit flag
│   ├── DownloadError                   the network or the checksum failed; nothing half-made is left
│   └── LoadCancelled                   the user stopped it
├── PluginError                         a plugin cannot be found, installed, loaded or run
│   └── PluginVerificationError         its files are not what the index or the signature says; nothing of them was run
└── InferenceError                      a request or the engine failed
    ├── RequestError (ValueError)       this request is wrong; others are untouched
    │   └── PromptTooLongError          num_prompt_tokens and max_context are attributes
    ├── OverloadedError                 too much is asked at once: the same request can be sent again
    ├── RequestAborted                  stopped before it finished
    └── EngineStoppedError              the engine is unloaded or its loop died; the message says why
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "CacheError",
    "ConfigError",
    "DownloadError",
    "EngineStoppedError",
    "GPUUnavailableError",
    "InferenceError",
    "LlamaGPUError",
    "LoadCancelled",
    "ModelFormatError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "OverloadedError",
    "PluginError",
    "PluginVerificationError",
    "PromptTooLongError",
    "RequestAborted",
    "RequestError",
    "UnsafeModelError",
    "WorkbenchError",
]


class WorkbenchError(Exception):
    """Anything this package raises on purpose."""


LlamaGPUError = WorkbenchError


class ConfigError(WorkbenchError, ValueError):
    """A setting is wrong. The message names the field, the value and what is allowed."""


class CacheError(WorkbenchError):
    """A cache cannot be read or written: no permission, no space, or too small a limit."""


class BackendError(WorkbenchError):
    """A backend or device cannot do what was asked."""


class BackendUnavailableError(BackendError):
    """The backend cannot be used here. The message gives the reason."""


class GPUUnavailableError(BackendUnavailableError):
    """A GPU was required and none can be used."""


class OutOfMemoryError(BackendError, MemoryError):
    """Weights, cache or a step did not fit.

    `needed_bytes` and `free_bytes` are what was asked and what was free (None where unknown);
    `would_fit` lists, in words, smaller choices that fit.
    """

    def __init__(
        self,
        message: str,
        *,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
        would_fit: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.would_fit = would_fit


class ModelLoadError(WorkbenchError):
    """The model could not become ready."""


class ModelNotFoundError(ModelLoadError):
    """No such model, file or folder."""


class ModelFormatError(ModelLoadError):
    """The files are damaged, truncated, contradictory or incomplete."""


class UnsafeModelError(ModelLoadError):
    """Loading would run code from the model's files, and the caller did not allow that."""


class DownloadError(ModelLoadError):
    """The network or a checksum failed. Nothing half-made is left behind."""


class LoadCancelled(ModelLoadError):
    """The user stopped a load or a download."""


class PluginError(WorkbenchError):
    """A plugin cannot be found, installed, loaded or run. What was there before still is."""


class PluginVerificationError(PluginError):
    """A plugin's files are not what the index or the signature says. Nothing of them was run."""


class InferenceError(WorkbenchError):
    """A request or the engine failed."""


class RequestError(InferenceError, ValueError):
    """This request is wrong; the others go on."""


class PromptTooLongError(RequestError):
    """The prompt does not fit the context. It is never cut silently."""

    def __init__(self, num_prompt_tokens: int, max_context: int) -> None:
        super().__init__(
            f"the prompt has {num_prompt_tokens} tokens and the context holds {max_context}, "
            f"of which one is needed for the answer: shorten it by {num_prompt_tokens - max_context + 1} tokens "
            "or load the model with a larger context_length"
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.max_context = max_context

    def __reduce__(self) -> tuple[type[PromptTooLongError], tuple[int, int]]:
        # Exceptions are copied and pickled by their message, which is not what this one is made from.
        return type(self), (self.num_prompt_tokens, self.max_context)


class OverloadedError(InferenceError):
    """Too much is asked for at once. The request is not wrong: it can be sent again."""


class RequestAborted(InferenceError):
    """The request was stopped before it finished."""


class EngineStoppedError(InferenceError):
    """The engine is unloaded, or its loop died; the message says why.

    `ended_process` says which process ended and how ("rank 1 of 2 was killed (SIGKILL)"), None where none did. Unlike
    the message it tells nothing else of this machine.
    """

    def __init__(self, message: str, *, ended_process: str | None = None) -> None:
        super().__init__(message)
        self.ended_process = ended_process

    @classmethod
    def of_death(cls, reason: str, ended_process: str | None = None) -> EngineStoppedError:
        """The error for an engine that ended without being asked to, with what can be done about it."""
        advice = "Everything else goes on: llm.restart_stopped() starts it again, as does a new load"
        return cls(f"{reason}. {advice}", ended_process=ended_process)
