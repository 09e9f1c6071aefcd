"""A model made of a hash, with a KV memory that is checked: what a sequence reads must be its own tokens.

It computes steps as the real runners do, so scheduler, block pool and engine can be driven without tensors.
"""

from __future__ import annotations

from collections import deque

import torch

from workbench.engine.config import EngineLimits
from workbench.engine.logit_rows import LogitRows
from workbench.engine.runner import LaunchedStep
from workbench.engine.sampler import SampledTokens

VOCAB_SIZE = 50


def make_limits(**changes) -> EngineLimits:
    """Limits of a small engine: 16 blocks of 4 tokens."""
    values = {
        "max_context": 40,
        "block_size": 4,
        "num_blocks": 16,
        "kv_bytes": 0,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 16,
        "max_prompt_tokens_beside_decodes": 8,
        "enable_prefix_caching": True,
        "reasons": {},
    }
    return EngineLimits(**(values | changes))


def hashed_token(token_ids, seed: int, index: int) -> int:
    """The fake model's next token: a function of everything before it, so that one wrong token changes all after it."""
    return hash((seed, index, *token_ids)) % VOCAB_SIZE


def repeated_token(token_ids, seed: int, index: int) -> int:
    """The same for a model that soon repeats itself: a function of the last token alone."""
    return hash((seed, index, token_ids[-1])) % 12


def spell(token_ids, skip_special_tokens=True) -> str:
    """Text of token ids: "<3><17>"."""
    return "".join(f"<{i}>" for i in token_ids)


class FakeRunner:
    """See Runner, and with `num_lanes` PipelinedRunner. With `overlaps` a token is fed to a later step before the
    host knows it: one of the last steps', of which as many are kept as there are lanes.

    `fails_at(plan)` may raise instead of computing a step. `model` gives what follows.
    """

    def __init__(self, limits: EngineLimits, *, overlaps=False, num_lanes=1, fails_at=None, model=hashed_token) -> None:
        self._model = model
        self.limits = limits
        self.overlaps = overlaps
        self.num_lanes = num_lanes
        self.fails_at = fails_at
        self.memory: dict[int, int] = {}
        self.plans = []
        self.num_overlapped = 0
        self._chosen = deque(maxlen=num_lanes)
        self._in_flight = set()
        self.most_in_flight = 0

    def needs_history(self, sequence) -> bool:
        return sequence.params.logprobs

    def launch(self, plan) -> LaunchedStep:
        if self.fails_at:
            self.fails_at(plan)
        self._check_plan(plan)
        self.plans.append(plan)
        for item in plan.items:
            for position, token_id in zip(range(item.start, item.end), self._inputs(item), strict=True):
                self.memory[self._slot(item.sequence, position)] = token_id
        rows = LogitRows(plan.items)
        choices = [self._choices(item) for item in rows.sampled]
        self._chosen.append({item.sequence: chosen[0] for item, chosen in zip(rows.sampled, choices, strict=True)})
        token_ids = [token_id for chosen in choices for token_id in chosen]
        tokens = SampledTokens(token_ids, [None] * len(token_ids), [False] * len(token_ids))
        number = len(self.plans)
        self._in_flight.add(number)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))

        def wait() -> SampledTokens:
            self._in_flight.discard(number)
            return tokens

        return LaunchedStep(rows.sampled, wait, rows.pick_scored(torch.zeros(len(rows.kept), VOCAB_SIZE)))

    def _check_plan(self, plan) -> None:
        sequences = [item.sequence for item in plan.items]
        assert len(set(map(id, sequences))) == len(sequences), "a sequence is planned twice"
        assert sum(item.num_new_tokens for item in plan.items) == plan.num_tokens <= self.limits.max_num_batched_tokens
        assert len(sequences) <= self.limits.max_num_seqs
        written = [b for item in plan.items for b in self._written_blocks(item)]
        assert len(set(written)) == len(written), "two sequences write to one block"

    def _written_blocks(self, item) -> set[int]:
        size = self.limits.block_size
        return {item.sequence.block_ids[position // size] for position in range(item.start, item.end)}

    def _inputs(self, item) -> list[int]:
        known = item.new_token_ids
        if len(known) == item.num_new_tokens:
            return known
        assert self.overlaps and not self.needs_history(item.sequence) and item.num_new_tokens == 1 and not known
        self.num_overlapped += 1
        return [next(chosen[item.sequence] for chosen in reversed(self._chosen) if item.sequence in chosen)]

    def _choices(self, item) -> list[int]:
        seen = [self.memory[self._slot(item.sequence, position)] for position in range(item.end)]
        own = item.sequence.token_ids[: item.end]
        assert seen[: len(own)] == own, "the cache does not hold the sequence's own tokens"
        ends = range(item.end + 1 - item.num_choices, item.end + 1)
        return [self._model(seen[:end], item.sequence.seed, item.sequence.index) for end in ends]

    def _slot(self, sequence, position: int) -> int:
        size = self.limits.block_size
        return sequence.block_ids[position // size] * size + position % size
