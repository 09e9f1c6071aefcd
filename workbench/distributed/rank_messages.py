"""What an engine and its ranks say to each other. Plain values and arrays only; they cross a pipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.distributed.place import Place
from workbench.errors import WorkbenchError
from workbench.models import ModelFiles

__all__ = ["Allocate", "Failed", "Job", "Loaded", "LostPeer", "Ready", "Step", "StepDone", "StepItem"]


@dataclass(frozen=True)
class Job:
    """Load a share of a model. `meeting_file` is where the ranks find each other."""

    place: Place
    files: ModelFiles
    dtype: str
    device: str
    meeting_file: str
    num_threads: int | None
    warm_up_tokens: int


@dataclass(frozen=True)
class Loaded:
    """A share is loaded: its decoder layers, bytes of its weights, KV elements per token, and what its device has."""

    layers: range
    weight_bytes: int
    kv_elements_per_token: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Allocate:
    """Make the KV pool. `logits_shape` is [lanes, rows, vocabulary] of the shared memory for logits, in float32."""

    num_blocks: int
    block_size: int
    logits_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Ready:
    """Steps can come. Bytes of the KV pool."""

    kv_bytes: int


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
