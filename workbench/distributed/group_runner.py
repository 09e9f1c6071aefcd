"""Has steps computed by a group of ranks, and chooses tokens from the logits that they leave in shared memory."""

from __future__ import annotations

import time

import numpy as np
import torch

from workbench.distributed.group_figures import GroupFigures
from workbench.distributed.rank_group import RankGroup
from workbench.distributed.rank_messages import Step, StepDone, StepItem
from workbench.distributed.shared_logits import map_logits
from workbench.engine.logit_rows import LogitRows, in_row_order
from workbench.engine.runner import LaunchedStep
from workbench.engine.sampler import SampledTokens, sample
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import ScheduledSequence, StepPlan

__all__ = ["GroupRunner"]


class GroupRunner:
    """See PipelinedRunner. `num_lanes` steps of at most `max_rows` kept rows can be in flight; their logits lie behind
    `logits_begin_bytes` of the shared memory."""

    overlaps = False

    def __init__(
        self,
        group: RankGroup,
        *,
        num_stages: int,
        tensor_size: int,
        num_lanes: int,
        max_rows: int,
        vocab_size: int,
        logits_begin_bytes: int = 0,
    ) -> None:
        self.num_lanes = num_lanes
        self.logits_shape = (num_lanes, max_rows, vocab_size)
        self._group = group
        self._tensor_size = tensor_size
        self._first_of_last_stage = (num_stages - 1) * tensor_size
        self._logits = map_logits(group.shared_fd, self.logits_shape, begin_bytes=logits_begin_bytes, makes_it=True)
        self._num_steps = 0
        # Of the ranks that write logits, how many have not finished a step.
        self._missing: dict[int, int] = {}
        self._busy_s = [0.0] * num_stages
        self._wall_s, self._working_since_s = 0.0, 0.0

    @property
    def figures(self) -> GroupFigures:
        """So far; a step counts when it is done."""
        return GroupFigures(tuple(self._busy_s), self._wall_s)

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner: a sequence has one token pending at most, and is not computed until it is known."""
        return False

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Hand a step to the ranks. Raises EngineStoppedError if they are gone."""
        items = in_row_order(plan.items)
        rows = LogitRows(items)
        number = self._num_steps
        self._num_steps += 1
        lane = number % self.num_lanes
        step = Step(number, lane, [_plain(item) for item in items], rows.kept)
        if not self._missing:
            self._working_since_s = time.perf_counter()
        self._missing[number] = self._tensor_size
        self._group.send_all(step)
        # Filled by `wait`, before which there are no logits.
        scored: list[tuple[ScheduledSequence, torch.Tensor]] = []

        def wait() -> SampledTokens:
            self._await(number)
            logits = self._logits[lane, : len(rows.kept)]
            scored.extend(rows.pick_scored(logits))
            return sample(rows.pick_sampled(logits), [item.sequence for item in rows.sampled])

        return LaunchedStep(rows.sampled, wait, scored)

    def _await(self, number: int) -> None:
        while number in self._missing:
            for rank, message in self._group.receive():
                self._take(rank, message)

    def _take(self, rank: int, done: StepDone) -> None:
        self._busy_s[rank // self._tensor_size] += done.busy_s / self._tensor_size
        if rank < self._first_of_last_stage:
            return
        self._missing[done.number] -= 1
        if self._missing[done.number] == 0:
            del self._missing[done.number]
            now_s = time.perf_counter()
            self._wall_s += now_s - self._working_since_s
            self._working_since_s = now_s


def _plain(item: ScheduledSequence) -> StepItem:
    ids = np.asarray(item.new_token_ids, dtype=np.int64)
    return StepItem(item.start, ids, np.asarray(item.block_ids, dtype=np.int32))
