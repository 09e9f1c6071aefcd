"""A smaller model that guesses the next tokens of answers, with a KV pool of its own. Decides and keeps books only:
the computing is a runner's.

After "speculative decoding" (Y. Leviathan et al. 2023), but for the choice of tokens: here each position has one random
number (`uniform.py`), and draft and model each choose by it, so that they agree wherever their distributions do.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from workbench.engine.config import EngineLimits
from workbench.engine.draft_pace import DraftPace, DraftPayoff
from workbench.engine.drafter import may_be_guessed
from workbench.engine.kv_cache import BlockPool
from workbench.engine.runner import Runner
from workbench.engine.sequence import Sequence, SequenceStatus
from workbench.engine.step_plan import StepPlan

__all__ = ["DraftModel"]


@dataclass(eq=False)
class _Shadow:
    """An answer as the draft model computes it: `sequence` has blocks of the draft's pool, and after the `num_known`
    tokens that the answer has itself those that are guessed."""

    sequence: Sequence
    num_known: int = 0
    is_stuck: bool = False

    @property
    def guesses(self) -> tuple[int, ...]:
        return tuple(self.sequence.token_ids[self.num_known :])

    def follow(self, token_ids: list[int]) -> None:
        """Take over what the answer has become: guesses that were right stay computed, the others are taken back."""
        own = self.sequence
        count = self.num_known
        while count < min(len(own.token_ids), len(token_ids)) and own.token_ids[count] == token_ids[count]:
            count += 1
        own.token_ids[count:] = token_ids[count:]
        # The last token is always computed, for what follows it.
        own.num_computed_tokens = min(own.num_computed_tokens, count, len(token_ids) - 1)
        self.num_known = len(token_ids)
        self.is_stuck = False


class DraftModel:
    """See Drafter. Guesses for all answers together, one token each a pass.

    `limits` are those of the engine, whose pool the draft's has as many blocks as; answers longer than `max_context`
    are not guessed.
    """

    def __init__(self, runner: Runner, limits: EngineLimits, max_context: int) -> None:
        self.num_drafted = 0
        self.num_accepted = 0
        self.pool = BlockPool(limits.num_blocks, limits.block_size, limits.enable_prefix_caching)
        self._runner = runner
        self._limits = limits
        self._max_context = max_context
        self._payoff = DraftPayoff()
        # Of the step that is being planned, for what becomes known of its time.
        self._has_guessed = False
        self._has_prompts = False
        self._num_answers = 0
        self._shadows: dict[Sequence, _Shadow] = {}
        # Kept when an answer is preempted, and gone with it.
        self._paces: weakref.WeakKeyDictionary[Sequence, DraftPace] = weakref.WeakKeyDictionary()

    def wants(self, sequences: Iterable[Sequence]) -> bool:
        """See Drafter."""
        waiting = list(sequences)
        return self._payoff.pays(len(waiting)) and any(self._reach(sequence, 1) > 0 for sequence in waiting)

    def draft(self, room: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """See Drafter. None for anybody while steps without guesses bring more tokens a second."""
        self._has_guessed = self._has_prompts = False
        self._num_answers = len(room)
        if not self._payoff.pays(len(room)):
            return {}
        reach = {sequence: self._reach(sequence, most) for sequence, most in room.items()}
        lengths = {sequence: count for sequence, count in reach.items() if count > 0}
        begun = self._begin(lengths)
        self._compute(begun)
        for number in range(1, max(lengths.values(), default=0)):
            further = [sequence for sequence in begun if self._goes_on(sequence, number, lengths[sequence])]
            if not further:
                break
            self._compute(dict.fromkeys(further, 1))
        guesses = {sequence: self._shadows[sequence].guesses for sequence in begun}
        return {sequence: drafts for sequence, drafts in guesses.items() if drafts}

    def learn(self, sequence: Sequence, num_drafted: int, num_accepted: int) -> None:
        """See Drafter. Gives back the blocks of guesses that were wrong."""
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        self._pace(sequence).learn(sequence.num_tokens, num_drafted, num_accepted)
        shadow = self._shadows.get(sequence)
        if shadow is not None:
            self._follow(shadow, sequence)

    def forget(self, sequence: Sequence) -> None:
        """See Drafter."""
        shadow = self._shadows.pop(sequence, None)
        if shadow is not None:
            self.pool.free(shadow.sequence.block_ids)

    def note_step(self, plan: StepPlan, num_tokens: int, seconds: float) -> None:
        """See Drafter. The time of steps with pieces of prompts says nothing about guesses."""
        if plan.num_decodes:
            has_prompts = plan.num_tokens > plan.num_decodes + plan.num_drafts
            guessed = plan.was_awaited or (plan.was_drafted and self._has_guessed)
            self._payoff.note(plan.num_decodes, num_tokens, None if has_prompts else seconds, guessed=guessed)

    def check_integrity(self) -> None:
        """See Drafter."""
        self.pool.check_integrity(shadow.sequence.block_ids for shadow in self._shadows.values())
        for sequence, shadow in self._shadows.items():
            assert sequence.status is SequenceStatus.RUNNING, "blocks are held for an answer that does not run"
            assert len(shadow.sequence.block_ids) <= self._num_blocks(len(shadow.sequence.token_ids)), "blocks too many"

    def _reach(self, sequence: Sequence, most: int) -> int:
        """How many tokens to guess for one answer."""
        if not may_be_guessed(sequence):
            return 0
        num_left = self._max_context - sequence.num_tokens
        if num_left < 1:
            self.forget(sequence)
        return min(most, num_left, self._pace(sequence).reach(sequence.num_tokens))

    def _pace(self, sequence: Sequence) -> DraftPace:
        return self._paces.setdefault(sequence, DraftPace(self._limits.draft_tokens))

    def _begin(self, sequences: Iterable[Sequence]) -> dict[Sequence, int]:
        """Who takes part in the first pass, with how many tokens: what the draft has not seen of an answer yet, in
        pieces where that is much."""
        limits = self._limits
        behind: dict[Sequence, int] = {}
        for sequence in sequences:
            shadow = self._shadows.get(sequence)
            if shadow is not None:
                self._follow(shadow, sequence)
            elif not self._waits_for_leader(sequence):
                shadow = self._start(sequence)
            if shadow is not None and self._hold_blocks(shadow, shadow.num_known):
                behind[sequence] = shadow.sequence.num_uncomputed_tokens
                self._has_prompts |= shadow.sequence.num_computed_tokens < sequence.num_prompt_tokens - 1
        budget = min(max(limits.max_prompt_tokens_beside_decodes, len(behind)), limits.max_num_batched_tokens)
        begun = {}
        for sequence in sorted(behind, key=behind.__getitem__):
            if budget:
                begun[sequence] = min(behind[sequence], budget)
                budget -= begun[sequence]
        return begun

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        """Whether the draft is computing the same prompt for another answer, whose blocks this one will share."""
        leader = None if sequence.leader is None else self._shadows.get(sequence.leader)
        return (
            self._limits.enable_prefix_caching
            and leader is not None
            and leader.sequence.num_computed_tokens < sequence.num_prompt_tokens - 1
        )

    def _start(self, sequence: Sequence) -> _Shadow:
        """Blocks that hold the answer's beginning already are shared."""
        size = self._limits.block_size
        num_matchable = (sequence.num_tokens - 1) // size
        keys = sequence.keys(num_matchable, size)[:num_matchable] if self._limits.enable_prefix_caching else []
        match = self.pool.match_prefix(keys)
        self.pool.share(match.block_ids)
        shadow = _Shadow(
            Sequence(
                sequence.request_id,
                sequence.index,
                token_ids=[],
                num_prompt_tokens=sequence.num_prompt_tokens,
                # Only its choices are wanted.
                params=replace(sequence.params, logprobs=False, top_logprobs=0, prompt_logprobs=None),
                seed=sequence.seed,
                eos_token_ids=sequence.eos_token_ids,
                max_total_tokens=self._max_context,
                block_ids=list(match.block_ids),
                block_keys=sequence.block_keys,
                num_findable_blocks=len(match.block_ids),
            )
        )
        shadow.follow(sequence.token_ids)
        shadow.sequence.num_computed_tokens = len(match.block_ids) * size
        self._shadows[sequence] = shadow
        return shadow

    def _follow(self, shadow: _Shadow, sequence: Sequence) -> None:
        shadow.follow(sequence.token_ids)
        kept = self._num_blocks(shadow.num_known)
        self.pool.free(shadow.sequence.block_ids[kept:])
        del shadow.sequence.block_ids[kept:]

    def _goes_on(self, sequence: Sequence, num_guesses: int, length: int) -> bool:
        """Whether one more token can be guessed for an answer that has so many guesses if it was up to date."""
        shadow = self._shadows[sequence]
        guesses = shadow.guesses
        is_next = len(guesses) == num_guesses < length and guesses[-1] not in sequence.stop_token_ids
        return is_next and not shadow.is_stuck and self._hold_blocks(shadow, len(shadow.sequence.token_ids))

    def _hold_blocks(self, shadow: _Shadow, num_tokens: int) -> bool:
        missing = self._num_blocks(num_tokens) - len(shadow.sequence.block_ids)
        if missing > 0:
            if not self.pool.can_allocate(missing):
                return False
            shadow.sequence.block_ids.extend(self.pool.allocate(missing))
        return True

    def _compute(self, counts: Mapping[Sequence, int]) -> None:
        """One pass of the draft model: so many tokens of each, and a guess after those that are up to date then."""
        if not counts:
            return
        self._has_guessed = True
        plan = StepPlan()
        shadows = {self._shadows[sequence].sequence: self._shadows[sequence] for sequence in counts}
        for own, count in zip(shadows, counts.values(), strict=True):
            plan.add(own, count)
        launched = self._runner.launch(plan)
        tokens = launched.wait()
        for (own, shadow), item in zip(shadows.items(), plan.items, strict=True):
            own.num_computed_tokens += item.num_new_tokens
            self._make_findable(shadow)
        for item, token_id, is_nan in zip(launched.sampled, tokens.token_ids, tokens.is_nan, strict=True):
            if is_nan:
                shadows[item.sequence].is_stuck = True
            else:
                item.sequence.token_ids.append(token_id)

    def _make_findable(self, shadow: _Shadow) -> None:
        """Let others share the blocks that are full of tokens which the answer has itself."""
        if not self._limits.enable_prefix_caching:
            return
        own, size = shadow.sequence, self._limits.block_size
        num_full = min(own.num_computed_tokens, shadow.num_known) // size
        keys = own.keys(num_full, size)
        for number in range(own.num_findable_blocks, num_full):
            self.pool.remember(own.block_ids[number], keys[number])
            own.num_findable_blocks = number + 1

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._limits.block_size)
