"""What a running engine has done so far: counters and histograms."""

from __future__ import annotations

from collections import Counter

from workbench.engine.config import EngineLimits
from workbench.engine.messages import EngineStats
from workbench.engine.scheduler import Scheduler
from workbench.engine.sequence import FinishReason
from workbench.engine.step_plan import StepPlan
from workbench.telemetry.histogram import SIZES, Histogram

__all__ = ["EngineFigures"]


class EngineFigures:
    """Counts since the engine began; `view` puts what is running now beside them."""

    def __init__(self, weight_bytes: int) -> None:
        self.num_generated_tokens = 0
        self._weight_bytes = weight_bytes
        self._num_requests = 0
        self._num_finished_requests = 0
        self._num_prompt_tokens = 0
        self._num_steps = 0
        self._kv_blocks_peak = 0
        self._finished: Counter[str] = Counter()
        self._inter_token_s = Histogram()
        self._batch_size = Histogram(SIZES)
        self._step_tokens = Histogram(SIZES)

    def note_request(self) -> None:
        self._num_requests += 1

    def note_step(self, plan: StepPlan, num_used_blocks: int) -> None:
        self._num_steps += 1
        self._batch_size.add(len(plan.items))
        self._step_tokens.add(plan.num_tokens)
        self._kv_blocks_peak = max(self._kv_blocks_peak, num_used_blocks)
        self._num_prompt_tokens += sum(item.num_prompt_tokens for item in plan.items)

    def note_embedding(self, num_tokens: int) -> None:
        self._num_prompt_tokens += num_tokens

    def note_token(self, since_last_s: float | None) -> None:
        """A token was generated; `since_last_s` is None for an answer's first."""
        self.num_generated_tokens += 1
        if since_last_s is not None:
            self._inter_token_s.add(since_last_s)

    def note_end(self, reason: FinishReason, *, is_requests_last: bool) -> None:
        """An answer ended, and with it its request if it was the last of it."""
        self._finished[reason.value] += 1
        self._num_finished_requests += is_requests_last

    def view(self, scheduler: Scheduler, limits: EngineLimits, reply_id: str) -> EngineStats:
        """The figures beside what is running and held now."""
        pool = scheduler.pool
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            kv_blocks_used=pool.num_used_blocks,
            kv_blocks_total=pool.num_blocks,
            block_size=pool.block_size,
            kv_bytes=limits.kv_bytes,
            weight_bytes=self._weight_bytes,
            requests_total=self._num_requests,
            requests_finished_total=self._num_finished_requests,
            prompt_tokens_total=self._num_prompt_tokens,
            generated_tokens_total=self.num_generated_tokens,
            prefix_hit_tokens_total=scheduler.num_prefix_hit_tokens,
            preemptions_total=scheduler.num_preemptions,
            draft_tokens_total=scheduler.drafter.num_drafted,
            accepted_draft_tokens_total=scheduler.drafter.num_accepted,
            steps_total=self._num_steps,
            finished_by_reason=dict(self._finished),
            inter_token_s=self._inter_token_s.view(),
            batch_size=self._batch_size.view(),
            step_tokens=self._step_tokens.view(),
            kv_blocks_peak=self._kv_blocks_peak,
            reply_id=reply_id,
        )
