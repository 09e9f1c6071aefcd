"""Runs steps on a GPU, one ahead of what the host knows: see DeviceSteps for how, and Engine.step for why."""

from __future__ import annotations

from collections.abc import Callable

import torch

from workbench.engine.config import EngineLimits
from workbench.engine.device_steps import Decoder, DeviceSteps
from workbench.engine.runner import LaunchedStep
from workbench.engine.sampler import SampledTokens, sample
from workbench.engine.sequence import Sequence
from workbench.engine.step_packer import StepPacker, StepShapes, needs_history
from workbench.engine.step_plan import StepPlan

__all__ = ["GraphRunner"]


class GraphRunner:
    """See Runner. `steps` compute on the device what is packed here."""

    overlaps = True

    def __init__(self, decoder: Decoder, limits: EngineLimits, device: str, num_kv_heads: int) -> None:
        shapes = StepShapes.of(limits)
        self.steps = DeviceSteps(decoder, shapes, limits, device, num_kv_heads)
        self._packer = StepPacker(shapes, pinned=torch.device(device).type == "cuda")

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner."""
        return needs_history(sequence)

    def capture(self, report: Callable[[int, int], None] = lambda done, total: None) -> None:
        """See DeviceSteps."""
        self.steps.capture(report)

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Put a step on the device's queue."""
        step, rows = self._packer.pack(plan)
        logits = self.steps.run(step)
        if any(needs_history(item.sequence) for item in rows.sampled):
            wait = self._sample_on_host(rows.pick_sampled(logits), rows.sequences)
        else:
            wait = self._fetch(step.num_sampled)
        return LaunchedStep(rows.sampled, wait, rows.pick_scored(logits))

    def _fetch(self, count: int) -> Callable[[], SampledTokens]:
        arrived = self.steps.fetch(count)
        return lambda: SampledTokens.on_device(arrived())

    def _sample_on_host(self, logits: torch.Tensor, sequences: list[Sequence]) -> Callable[[], SampledTokens]:
        """Each sequence's next token, guesses that it is thought to have included."""
        tokens = sample(logits, sequences)
        self.steps.choose(tokens.token_ids)
        return lambda: tokens
