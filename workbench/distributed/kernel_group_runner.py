"""Has packed steps computed by a group of ranks with the GPU's own kernels: one step ahead of what is known here, or
over the stages of a pipeline several, each of other sequences."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from workbench.distributed.group_figures import GroupFigures
from workbench.distributed.rank_group import RankGroup
from workbench.distributed.rank_messages import Chosen, KernelStep, StepDone
from workbench.distributed.shared_logits import map_logits
from workbench.engine.config import EngineLimits
from workbench.engine.runner import LaunchedStep
from workbench.engine.sampler import SampledTokens, sample
from workbench.engine.sequence import Sequence
from workbench.engine.step_packer import StepPacker, StepShapes, needs_history
from workbench.engine.step_plan import ScheduledSequence, StepPlan

__all__ = ["KernelGroupRunner"]


class KernelGroupRunner:
    """See Runner, and with several stages PipelinedRunner. Every rank of a stage does the same, and its first one tells
    of it: that of the last stage which tokens are chosen. A pipeline computes up to `num_lanes` steps at once; one more
    waits behind them."""

    overlaps = True

    def __init__(
        self, group: RankGroup, limits: EngineLimits, vocab_size: int, *, num_stages: int = 1, num_lanes: int = 1
    ) -> None:
        self.num_lanes = num_lanes
        self._num_in_flight = num_lanes + 1
        self.logits_shape = (self._num_in_flight, max(limits.max_num_batched_tokens, limits.max_num_seqs), vocab_size)
        self._group = group
        self._ranks_per_stage = group.size // num_stages
        num_slots = self._num_in_flight if num_stages > 1 else 1
        self._packer = StepPacker(StepShapes.of(limits), pinned=False, num_slots=num_slots)
        self._logits = map_logits(group.shared_fd, self.logits_shape, makes_it=True)
        self._num_steps = 0
        self._chosen: dict[int, Chosen] = {}
        self._num_missing = 0
        self._busy_s = [0.0] * num_stages
        self._wall_s, self._working_since_s = 0.0, 0.0

    @property
    def figures(self) -> GroupFigures:
        """So far; a step counts when it is done."""
        return GroupFigures(tuple(self._busy_s), self._wall_s)

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner."""
        return needs_history(sequence)

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Hand a step to the ranks. Raises EngineStoppedError if they are gone."""
        step, rows = self._packer.pack(plan)
        by_host = any(needs_history(item.sequence) for item in rows.sampled)
        is_scored = any(item.sequence.wants_prompt_logprobs for item in plan.items)
        number, lane = self._num_steps, self._num_steps % self._num_in_flight
        self._num_steps += 1
        if not self._num_missing:
            self._working_since_s = time.perf_counter()
        self._num_missing += 1
        self._group.send_all(
            KernelStep(number, lane, replace(step, ints=_NOTHING), step.ints.numpy(), by_host or is_scored)
        )
        # Filled by `wait`, before which there are no logits.
        scored: list[tuple[ScheduledSequence, torch.Tensor]] = []

        def wait() -> SampledTokens:
            chosen = self._await(number)
            logits = self._logits[lane, : step.num_rows]
            scored.extend(rows.pick_scored(logits))
            if by_host:
                return sample(rows.pick_sampled(logits), [item.sequence for item in rows.sampled])
            return SampledTokens.on_device(chosen.token_ids)

        return LaunchedStep(rows.sampled, wait, scored)

    def _await(self, number: int) -> Chosen:
        while number not in self._chosen:
            for rank, message in self._group.receive():
                self._take(rank, message)
        return self._chosen.pop(number)

    def _take(self, rank: int, done: Chosen | StepDone) -> None:
        self._busy_s[rank // self._ranks_per_stage] += done.busy_s
        if isinstance(done, StepDone):
            return
        self._chosen[done.number] = done
        self._num_missing -= 1
        now_s = time.perf_counter()
        self._wall_s += now_s - self._working_since_s
        self._working_since_s = now_s


_NOTHING = torch.empty(0, dtype=torch.int32)
