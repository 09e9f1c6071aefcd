"""What a session says of itself: the choice, its state, what came of it. Values only; knows no engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from workbench.errors import ConfigError
from workbench.failure import Failure
from workbench.parallel import GPUConfig
from workbench.progress import Progress
from workbench.unload_receipt import UnloadReceipt

__all__ = ["LoadChoice", "LoadedFacts", "SessionState", "SessionStatus"]


class SessionState(Enum):
    """Where a session stands. EMPTY, READY and FAILED last until somebody asks for something."""

    EMPTY = "empty"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True)
class LoadChoice:
    """What to load. `backend`, `precision`, `context_length` (tokens) and `kv_dtype` (of the cache) are None for
    "choose for me"; `cpu_offload_layers` stay in the host's memory. `engine_name` is None for our own. `draft_model` is
    a smaller model that guesses ahead, None for none.

    `gpus` are indexes of the backend's devices, empty for its first one. `parallel` spreads the model over
    several.
    """

    model: str = "default"
    backend: str | None = None
    precision: str | None = None
    context_length: int | None = None
    gpus: tuple[int, ...] = ()
    kv_dtype: str | None = None
    cpu_offload_layers: int | None = None
    engine_name: str | None = None
    parallel: GPUConfig | None = None
    draft_model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise ConfigError(f"model is {self.model!r}: the name of a model, a folder or a file is needed")
        if self.draft_model is not None and (not isinstance(self.draft_model, str) or not self.draft_model.strip()):
            raise ConfigError(f"draft_model is {self.draft_model!r}: the name of a smaller model is needed, or None")
        _require_count("context_length", self.context_length)
        _require_count("cpu_offload_layers", self.cpu_offload_layers)
        object.__setattr__(self, "gpus", tuple(self.gpus))
        if not all(type(index) is int and index >= 0 for index in self.gpus) or len(set(self.gpus)) != len(self.gpus):
            raise ConfigError(f"gpus is {self.gpus!r}: must be different indexes of at least 0")


def _require_count(field: str, value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"{field} is {value!r}: must be a whole number of at least 1, or None")


@dataclass(frozen=True)
class LoadedFacts:
    """What became of a choice: every "choose for me" is settled here."""

    model: str
    backend: str
    precision: str
    max_context: int


@dataclass(frozen=True)
class SessionStatus:
    """A session at one moment.

    `progress` belongs to LOADING, `failure` to FAILED, `facts` to READY; a model on a cluster is READY also with the
    progress or the failure of the next one. `freed_bytes` (device -> bytes) is what the last unload gave back,
    `receipt` the same with what is missing from it. `is_cancelling` is true of a load that is to end and has not yet.
    """

    state: SessionState = SessionState.EMPTY
    choice: LoadChoice | None = None
    progress: Progress | None = None
    facts: LoadedFacts | None = None
    failure: Failure | None = None
    freed_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    receipt: UnloadReceipt | None = None
    is_cancelling: bool = False
