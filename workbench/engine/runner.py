"""What computes an engine's steps, and a step on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from workbench.engine.sampler import SampledTokens
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import ScheduledSequence, StepPlan

__all__ = ["LaunchedStep", "PipelinedRunner", "PreparingRunner", "Runner"]


@dataclass(frozen=True)
class LaunchedStep:
    """A step that is being computed.

    `sampled` are the plan's items whose next token is being chosen; `wait()` gives the tokens, one for each of an
    item's choices.
    `scored` pairs an item whose prompt positions are scored with its logits [num_new_tokens, vocab].
    """

    sampled: list[ScheduledSequence]
    wait: Callable[[], SampledTokens]
    scored: list[tuple[ScheduledSequence, torch.Tensor]]


class Runner(Protocol):
    """Computes steps.

    With `overlaps`, a step may be launched before the tokens of the one before it are known on the host: their
    sequences then have pending tokens, which the device feeds to itself. `needs_history` says of a sequence that its
    next token cannot be chosen that way.
    """

    overlaps: bool

    def launch(self, plan: StepPlan) -> LaunchedStep: ...

    def needs_history(self, sequence: Sequence) -> bool: ...


class PreparingRunner(Runner, Protocol):
    """Becomes a faster one while it serves: `advance()` does a little of that between steps, and where there is no step
    it is called again after `most_idle_s` seconds (None: never). `close` ends the preparation."""

    most_idle_s: float | None

    def advance(self) -> None: ...

    def close(self) -> None: ...


class PipelinedRunner(Runner, Protocol):
    """Computes up to `num_lanes` steps at once, each of other sequences, and gives them back in their order."""

    num_lanes: int
