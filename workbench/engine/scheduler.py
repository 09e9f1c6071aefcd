"""Which sequences compute how many tokens in the next step. Pure decisions over block ids, no torch.

Every sequence has some tokens computed and some not; a decode step is one token left, a prompt is many. Running
sequences come first, then waiting ones in order of arrival, within a budget of tokens per step. When blocks run out
the youngest running sequence gives its blocks back and waits; its tokens are kept and recomputed later.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection

from workbench.engine.config import EngineLimits
from workbench.engine.drafter import Drafter
from workbench.engine.kv_cache import BlockPool, PrefixMatch
from workbench.engine.prompt_lookup import PromptLookup
from workbench.engine.sequence import Sequence, SequenceStatus
from workbench.engine.step_plan import ScheduledSequence, StepPlan

__all__ = ["Scheduler"]

# A prompt whose every position is scored needs one row of logits per token: smaller chunks bound that memory.
_SCORED_CHUNK = 128
# Smaller chunks would mostly read weights.
_LEAST_CHUNK = 32
# Where chunks grow, a step beside running streams takes one in so many of the prompt tokens that wait, if that is more:
# no pause is longer than a sixteenth of what the last of them has to wait.
_WAITING_SHARE = 16
# On a GPU products of so many rows, or a multiple, fill all multiprocessors alike: timed on an H100, 1,056 rows take as
# long as 1,152.
_WHOLE_ROWS = 1024


class Scheduler:
    """Holds waiting and running sequences and the block pool they draw from. `drafter` guesses ahead; None: by looking
    up what came before."""

    def __init__(self, limits: EngineLimits, drafter: Drafter | None = None) -> None:
        self.limits = limits
        self.drafter: Drafter = drafter or PromptLookup(limits.draft_tokens)
        self.pool = BlockPool(limits.num_blocks, limits.block_size, limits.enable_prefix_caching)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._max_running = limits.max_num_seqs
        self.num_prefix_hit_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self, num_lanes: int = 1, fed: Collection[Sequence] = ()) -> StepPlan:
        """Choose the next step's tokens and make sure that blocks for them are held.

        With several lanes (steps that are computed at once, see `Engine`) a step takes its share of the sequences, and
        none whose next token is being chosen unless it is among those that are `fed` on the device.
        """
        plan = StepPlan(fed=fed)
        if num_lanes > 1:
            num_free = sum(plan.knows_or_feeds(sequence) for sequence in self.running)
            plan.max_items = -(-(len(self.running) + len(self.waiting)) // num_lanes)
            plan.max_items = max(1, min(plan.max_items, num_free + len(self.waiting)))
            plan.needs_known_tokens = True
        preempted = self._schedule_decodes(plan)
        plan.most_beside_decodes = self._most_beside_decodes(plan)
        self._schedule_chunks(plan)
        if not preempted:
            self._admit_waiting(plan)
        return plan

    def wants_guesses(self) -> bool:
        """Whether the tokens in flight should be known before the next step is planned, because guesses after them are
        worth it."""
        if not self.limits.draft_tokens or self.waiting or 2 * len(self.running) > self.limits.draft_rows:
            return False
        if any(sequence.num_uncomputed_tokens != 1 for sequence in self.running):
            return False
        going_on = [sequence for sequence in self.running if not sequence.is_full]
        return bool(going_on) and self.drafter.wants(going_on)

    def commit(self, plan: StepPlan) -> None:
        """Record that the step was computed: blocks that became full can be found by their content from now on."""
        for item in plan.items:
            item.sequence.num_computed_tokens += item.num_new_tokens
            self._make_findable(item.sequence)

    def settle(self, item: ScheduledSequence, num_accepted: int) -> None:
        """Take back the guesses after the accepted ones: their positions are computed anew."""
        num_drafted = len(item.draft_token_ids)
        item.sequence.num_computed_tokens -= num_drafted - num_accepted
        self.drafter.learn(item.sequence, num_drafted, num_accepted)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, whether it ran or waited, and give its blocks back. Doing so twice is harmless."""
        if sequence.status is SequenceStatus.FINISHED:
            return
        (self.running if sequence.status is SequenceStatus.RUNNING else self.waiting).remove(sequence)
        self._release(sequence)
        self.drafter.forget(sequence)
        sequence.status = SequenceStatus.FINISHED
        self._max_running = self.limits.max_num_seqs

    def preempt_youngest(self) -> Sequence | None:
        """Make the youngest running sequence give its blocks back and wait first in line."""
        if not self.running:
            return None
        victim = self.running.pop()
        self._release(victim)
        self.drafter.forget(victim)
        victim.num_computed_tokens = victim.num_findable_blocks = 0
        victim.status = SequenceStatus.WAITING
        self.waiting.appendleft(victim)
        self.num_preemptions += 1
        return victim

    def hold_back_youngest(self) -> None:
        """Make the youngest running sequence wait until another has ended, for want of more than blocks."""
        self.preempt_youngest()
        self._max_running = max(1, len(self.running))

    def check_integrity(self) -> None:
        """Raise AssertionError if a block leaked or is held twice."""
        self.pool.check_integrity(s.block_ids for s in (*self.running, *self.waiting))
        self.drafter.check_integrity()

    def _schedule_decodes(self, plan: StepPlan) -> bool:
        preempted = False
        for sequence in list(self.running):
            if sequence.num_uncomputed_tokens != 1 or plan.num_tokens >= self.limits.max_num_batched_tokens:
                continue
            if not plan.may_take(sequence) or (sequence.is_full and sequence.num_pending_tokens):
                continue
            # Victims come from the end of `running`, so never from what this loop has already planned.
            while sequence.status is SequenceStatus.RUNNING and not self._hold_blocks(sequence):
                self.preempt_youngest()
                preempted = True
            if sequence.status is SequenceStatus.RUNNING:
                plan.add(sequence, 1)
        # After a token that is not known nothing can be guessed.
        if self.limits.draft_tokens and plan.items and not any(i.sequence.num_pending_tokens for i in plan.items):
            self._add_drafts(plan)
        return preempted

    def _add_drafts(self, plan: StepPlan) -> None:
        """Guesses for the sequences that are about to decode, as far as rows, blocks and their own end leave room."""
        # Every running sequence keeps a row; the others are shared out evenly.
        num_others = len(self.running) - len(plan.items)
        budget = self.limits.max_num_batched_tokens - plan.num_tokens - num_others
        share = min((self.limits.draft_rows - len(self.running)) // len(self.running), budget // len(plan.items))
        room = {item.sequence: min(share, item.sequence.num_tokens_to_go - 1) for item in plan.items}
        drafts = self.drafter.draft(room)
        plan.was_drafted = True
        for number, item in enumerate(plan.items):
            guesses = drafts.get(item.sequence, ())
            if guesses and self._hold_blocks_of_drafts(item.sequence, len(guesses)):
                plan.add_drafts(number, guesses)

    def _hold_blocks_of_drafts(self, sequence: Sequence, num_drafts: int) -> bool:
        missing = self._num_blocks(sequence.length + num_drafts) - len(sequence.block_ids)
        if missing > 0:
            # Nobody is preempted for a guess, and each of the others may need a block.
            if not self.pool.can_allocate(missing + len(self.running)):
                return False
            sequence.block_ids.extend(self.pool.allocate(missing))
        return True

    def _schedule_chunks(self, plan: StepPlan) -> None:
        for sequence in self.running:
            num_new = self._chunk(sequence, plan)
            if sequence.num_uncomputed_tokens > 1 and num_new > 0 and plan.may_take(sequence):
                plan.add(sequence, num_new)

    def _admit_waiting(self, plan: StepPlan) -> None:
        while self.waiting and len(self.running) < self._max_running:
            sequence = self.waiting[0]
            # One that was preempted while a step computed its next token waits for that token.
            if plan.is_full or sequence.num_pending_tokens:
                return
            if sequence.leader is not None and not sequence.leader.prompt_is_computed:
                return
            if self._chunk(sequence, plan) <= 0 or not self._start(sequence):
                return
            self.waiting.popleft()
            plan.add(sequence, self._chunk(sequence, plan))

    def _start(self, sequence: Sequence) -> bool:
        """Give a waiting sequence blocks for all its tokens: shared ones where its beginning is known."""
        match = self._match(sequence)
        num_blocks = self._num_blocks(sequence.length)
        num_new_blocks = num_blocks - len(match.block_ids)
        num_taken_from_free = num_blocks - match.num_in_use
        # One free block per running sequence stays back, or the newcomer would be the next to be preempted.
        if not self.pool.can_allocate(num_taken_from_free + len(self.running)):
            return False
        self.pool.share(match.block_ids)
        sequence.block_ids = [*match.block_ids, *self.pool.allocate(num_new_blocks)]
        sequence.num_findable_blocks = len(match.block_ids)
        sequence.num_computed_tokens = len(match.block_ids) * self.limits.block_size
        if sequence.num_generated_tokens == 0:
            sequence.num_cached_tokens = sequence.num_computed_tokens
            self.num_prefix_hit_tokens += sequence.num_computed_tokens
        sequence.status = SequenceStatus.RUNNING
        self.running.append(sequence)
        return True

    def _match(self, sequence: Sequence) -> PrefixMatch:
        if sequence.wants_prompt_logprobs:
            return PrefixMatch((), 0)
        # At least one token must be computed, or there would be no logits to sample from.
        num_matchable = (sequence.num_tokens - 1) // self.limits.block_size
        keys = self._keys(sequence, num_matchable)
        return self.pool.match_prefix(keys[:num_matchable])

    def _chunk(self, sequence: Sequence, plan: StepPlan) -> int:
        budget = self.limits.max_num_batched_tokens - plan.num_tokens
        if plan.num_decodes:
            num_prompt_tokens = plan.num_tokens - plan.num_decodes - plan.num_drafts
            most = self._shrunk(plan.most_beside_decodes, sequence.num_computed_tokens)
            budget = min(budget, most - num_prompt_tokens)
        if sequence.wants_prompt_logprobs:
            budget = min(budget, _SCORED_CHUNK)
        return min(sequence.num_uncomputed_tokens, budget)

    def _most_beside_decodes(self, plan: StepPlan) -> int:
        """Most prompt tokens of a step beside its decodes. Where chunks grow, both together are whole rows."""
        most = self.limits.max_prompt_tokens_beside_decodes
        if not self.limits.chunks_grow:
            return most
        share = self._num_waiting_tokens(_WAITING_SHARE * self.limits.max_num_batched_tokens) // _WAITING_SHARE
        whole = max(most, share // _WHOLE_ROWS * _WHOLE_ROWS)
        return max(whole - plan.num_decodes - plan.num_drafts, most // 2)

    def _num_waiting_tokens(self, most: int) -> int:
        """Prompt tokens that are not computed yet, counted as far as `most`."""
        count = 0
        for sequence in itertools.chain(self.running, self.waiting):
            count += max(0, sequence.num_uncomputed_tokens - 1)
            if count >= most:
                break
        return count

    def _shrunk(self, most: int, start: int) -> int:
        """Fewer tokens where each has more context to look at, so that a chunk takes about as long anywhere."""
        doubling = self.limits.doubling_context_tokens
        if doubling is None:
            return most
        return max(min(most, _LEAST_CHUNK), most * doubling // (doubling + start))

    def _hold_blocks(self, sequence: Sequence) -> bool:
        missing = self._num_blocks(sequence.length) - len(sequence.block_ids)
        if missing > 0:
            if not self.pool.can_allocate(missing):
                return False
            sequence.block_ids.extend(self.pool.allocate(missing))
        return True

    def _release(self, sequence: Sequence) -> None:
        self.pool.free(sequence.block_ids)
        sequence.block_ids = []

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.limits.block_size)

    def _make_findable(self, sequence: Sequence) -> None:
        """Let others share the blocks that are computed, full, and whose tokens are all known by now."""
        num_full = min(sequence.num_computed_tokens, sequence.num_tokens) // self.limits.block_size
        keys = self._keys(sequence, num_full)
        for i in range(sequence.num_findable_blocks, min(num_full, len(keys))):
            self.pool.remember(sequence.block_ids[i], keys[i])
            sequence.num_findable_blocks = i + 1

    def _keys(self, sequence: Sequence, num_blocks: int) -> list[bytes]:
        """Keys of at least the first `num_blocks` full blocks; none where no prefixes are reused."""
        return sequence.keys(num_blocks, self.limits.block_size) if self.limits.enable_prefix_caching else []
