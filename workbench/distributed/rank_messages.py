"""What an engine and its ranks say to each other. Plain values and arrays only; they cross a pipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.distributed.place import Place
from workbench.distributed.shared_table import SharedTable
from workbench.engine.config import EngineLimits
from workbench.engine.step_packer import PackedStep
from workbench.errors import WorkbenchError
from workbench.models import ModelFiles

__all__ = [
    "Allocate",
    "Chosen",
    "Failed",
    "Job",
    "KernelStep",
    "Loaded",
    "LostPeer",
    "Measure",
    "Ready",
    "Step",
    "StepDone",
    "StepItem",
]


@dataclass(frozen=True)
class Job:
    """Load a share of a model, with `layers` of its decoder. `meeting_file` is where the ranks find each other; with
    `uses_kernels` a share is computed by the GPU's own kernels where they know it.
    A shared `table` is the last stage's to fill and the first one's to read."""

    place: Place
    layers: range
    files: ModelFiles
    dtype: str
    device: str
    meeting_file: str
    num_threads: int | None
    warm_up_tokens: int
    uses_kernels: bool
    table: SharedTable | None


@dataclass(frozen=True)
class Measure:
    """Before a job: time the parts of a model on a device. Answered by StageCosts."""

    files: ModelFiles
    dtype: str
    device: str
    num_threads: int | None


@dataclass(frozen=True)
class Loaded:
    """A share is loaded: its decoder layers, bytes of its weights, KV elements per token, and what its device has.

    `why_eager` says why the GPU's own kernels do not compute it; None if they do.
    """

    layers: range
    weight_bytes: int
    kv_elements_per_token: int
    free_bytes: int
    total_bytes: int
    why_eager: str | None


@dataclass(frozen=True)
class Allocate:
    """Make the KV pool, of one block more than `limits` hand out. `logits_shape` is [lanes, rows, vocabulary] of the
    shared memory for logits, in float32; as many steps as it has lanes are in flight at most. `uses_kernels`: all ranks
    compute with the GPU's own."""

    limits: EngineLimits
    logits_shape: tuple[int, int, int]
    uses_kernels: bool


@dataclass(frozen=True)
class Ready:
    """Steps can come. Bytes of the KV pool, and in words how the GPU's own kernels compute."""

    kv_bytes: int
    words: str = ""


@dataclass(frozen=True)
class StepItem:
    """Consecutive new tokens of one sequence, from position `start` on; see ScheduledSequence."""

    start: int
    new_token_ids: np.ndarray
    block_ids: np.ndarray

    @property
    def num_new_tokens(self) -> int:
        return len(self.new_token_ids)

    @property
    def end(self) -> int:
        return self.start + self.num_new_tokens

    def part(self, start: int, end: int) -> StepItem:
        """The same for fewer of its positions."""
        return StepItem(start, self.new_token_ids[start - self.start : end - self.start], self.block_ids)


@dataclass(frozen=True)
class Step:
    """Compute items, in row order, and put the logits of the rows `kept` into a lane of the shared memory."""

    number: int
    lane: int
    items: list[StepItem]
    kept: list[int]


@dataclass(frozen=True)
class KernelStep:
    """Compute a packed step whose `ints` are here an array of their own. With `wants_logits` they go into a lane of the
    shared memory, float32."""

    number: int
    lane: int
    step: PackedStep
    ints: np.ndarray
    wants_logits: bool


@dataclass(frozen=True)
class Chosen:
    """A packed step is computed, and these tokens are chosen. `busy_s` is the time that it took its device."""

    number: int
    token_ids: list[int]
    busy_s: float


@dataclass(frozen=True)
class StepDone:
    """A step is computed. `busy_s` is the time without waiting for the stage before."""

    number: int
    busy_s: float


@dataclass(frozen=True)
class Failed:
    """The rank gives up, and with it the group."""

    error: WorkbenchError


@dataclass(frozen=True)
class LostPeer:
    """The rank cannot go on, since another one cannot be reached; `words` are the transport's."""

    words: str
