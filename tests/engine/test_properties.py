"""Properties that hold whatever comes: of the block pool, the scheduler, the sampler and the text of an answer."""

from __future__ import annotations

import itertools

import pytest
import torch
from engine.fake_runner import make_limits
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workbench.engine.finish import AnswerText
from workbench.engine.kv_cache import BlockPool, chain_key
from workbench.engine.sampler import sample
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.scheduler import Scheduler
from workbench.engine.sequence import FinishReason, Sequence, SequenceStatus
from workbench.models.byte_tokenizer import make_byte_tokenizer

# The same examples in every run, so that a red test is red for everybody.
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
STEPS = settings(QUICK, max_examples=40, stateful_step_count=30)
VOCAB = 300


class PoolMachine(RuleBasedStateMachine):
    """Holders take, share, let go and make findable, in any order; the pool's book must always be right."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(8, 2)
        self.held: list[list[int]] = []
        self.keys: list[bytes] = []

    @rule(count=st.integers(0, 9))
    def allocate(self, count: int) -> None:
        free = self.pool.num_free_blocks
        assert self.pool.can_allocate(count) == (count <= free)
        if count <= free:
            taken = self.pool.allocate(count)
            assert len(set(taken)) == count and self.pool.num_free_blocks == free - count
            self.held.append(taken)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        self.pool.free(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), token=st.integers(0, 2))
    def remember(self, data: st.DataObject, token: int) -> None:
        blocks = data.draw(st.sampled_from([blocks for blocks in self.held if blocks]))
        previous = b""
        for block_id in blocks:
            previous = chain_key(previous, [token, token])
            self.pool.remember(block_id, previous)
            self.keys.append(previous)

    @rule(token=st.integers(0, 2), length=st.integers(1, 4))
    def share_a_known_beginning(self, token: int, length: int) -> None:
        keys, previous = [], b""
        for _ in range(length):
            previous = chain_key(previous, [token, token])
            keys.append(previous)
        match = self.pool.match_prefix(keys)
        assert len(match.block_ids) <= length
        assert match.num_in_use == sum(any(b in blocks for blocks in self.held) for b in match.block_ids)
        if match.block_ids:
            self.pool.share(match.block_ids)
            self.held.append(list(match.block_ids))

    @invariant()
    def the_book_is_right(self) -> None:
        self.pool.check_integrity(self.held)
        assert self.pool.num_free_blocks + self.pool.num_used_blocks == 8


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, steps run, some are aborted or preempted; nobody is lost and no limit is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = make_limits(num_blocks=12, max_num_seqs=4, max_num_batched_tokens=9)
        self.scheduler = Scheduler(self.limits)
        self.alive: list[Sequence] = []
        self.tokens = itertools.count(1000)

    @rule(prompt=st.lists(st.integers(0, 2), min_size=1, max_size=24), answer=st.integers(1, 12))
    def add(self, prompt: list[int], answer: int) -> None:
        params = SamplingParams(max_tokens=answer)
        sequence = Sequence("r", 0, list(prompt), len(prompt), params, 0, frozenset(), 40)
        self.scheduler.add(sequence)
        self.alive.append(sequence)

    @rule()
    def step(self) -> None:
        plan = self.scheduler.schedule()
        assert plan.num_tokens <= self.limits.max_num_batched_tokens
        assert len({id(item.sequence) for item in plan.items}) == len(plan.items)
        for item in plan.items:
            assert item.num_new_tokens > 0 and item.sequence.status is SequenceStatus.RUNNING
            assert len(item.block_ids) * self.limits.block_size >= item.end
        self.scheduler.commit(plan)
        for item in plan.items:
            if item.samples:
                item.sequence.token_ids.append(next(self.tokens))
                if item.sequence.is_full:
                    self._finish(item.sequence)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self._finish(data.draw(st.sampled_from(self.alive)))

    @rule()
    def preempt(self) -> None:
        before = {id(one): list(one.token_ids) for one in self.alive}
        self.scheduler.preempt_youngest()
        assert {id(one): one.token_ids for one in self.alive} == before

    def _finish(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        self.alive.remove(sequence)

    @invariant()
    def nobody_is_lost_or_held_twice(self) -> None:
        self.scheduler.check_integrity()
        assert len(self.scheduler.running) <= self.limits.max_num_seqs
        known = [*self.scheduler.running, *self.scheduler.waiting]
        assert sorted(map(id, known)) == sorted(map(id, self.alive))

    def teardown(self) -> None:
        # Whatever the state, everybody gets to the end, and every block comes back.
        for _ in range(400):
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work and not self.alive
        assert self.scheduler.pool.num_free_blocks == self.limits.num_blocks


TestPool = PoolMachine.TestCase
TestPool.settings = STEPS
TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = STEPS

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40)
SAMPLING = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.1, 3.0),
        "top_k": st.integers(0, 45),
        "top_p": st.floats(0.05, 1.0),
        "min_p": st.floats(0.0, 0.9),
        "typical_p": st.sampled_from([1.0, 0.5, 0.9]),
    }
)


def _row(seed: int, **sampling: object) -> Sequence:
    return Sequence("r", 0, [0, 1], 1, SamplingParams(**sampling), seed, frozenset(), 100)


@QUICK
@given(LOGITS, SAMPLING, st.integers(0, 2**64 - 1))
def test_a_drawn_token_is_one_that_every_filter_leaves(
    values: list[float], sampling: dict[str, float], seed: int
) -> None:
    logits = torch.tensor([values])
    (token,) = sample(logits, [_row(seed, **sampling)]).token_ids
    scaled = logits[0].double() / sampling["temperature"]
    better = int((scaled > scaled[token]).sum())
    top_k = int(sampling["top_k"])
    if top_k:
        assert better < top_k
        kept = scaled.topk(min(top_k, len(values))).values
        probs = torch.softmax(kept, dim=-1)
        own = float((scaled[token] - torch.logsumexp(kept, 0)).exp())
    else:
        probs = torch.softmax(scaled, dim=-1)
        own = float(probs[token])
    # Single precision decides at the edge; at least one token stays, so the likeliest is always allowed.
    if better:
        assert own >= sampling["min_p"] * float(probs.max()) - 1e-4
        assert float(probs[probs > own * (1 + 1e-6)].sum()) < sampling["top_p"] + 1e-4


@QUICK
@given(LOGITS, st.integers(0, 2**32))
def test_without_temperature_the_likeliest_is_taken_and_the_rows_do_not_know_each_other(
    values: list[float], seed: int
) -> None:
    logits = torch.tensor([values])
    assert sample(logits, [_row(seed)]).token_ids == [int(logits.argmax())]
    drawn = sample(logits, [_row(seed, temperature=1.0)]).token_ids
    others = torch.randn(3, len(values), generator=torch.Generator().manual_seed(0))
    rows = [_row(1), _row(seed, temperature=1.0), _row(2, temperature=2.0), _row(3, top_k=1, temperature=1.0)]
    batch = torch.cat([others[:1], logits, others[1:]])
    kept = batch.clone()
    assert sample(batch, rows).token_ids[1:2] == drawn
    assert torch.equal(batch, kept)


@pytest.fixture(scope="module")
def decode():
    tokenizer = make_byte_tokenizer(VOCAB)
    return lambda ids: tokenizer.decode(ids, True)


@pytest.fixture(scope="module")
def encode():
    tokenizer = make_byte_tokenizer(VOCAB)
    return lambda text: tokenizer.encode(text, add_special_tokens=False)


def _pieces(decode, token_ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], FinishReason | None]:
    """What is shown after each token, and why it ended."""
    params = SamplingParams(max_tokens=None, stop=stop)
    sequence = Sequence("r", 0, [5], 1, params, 0, frozenset(), 10**6)
    text, pieces = AnswerText(sequence, decode), []
    for token_id in token_ids:
        sequence.token_ids.append(token_id)
        piece = text.advance()
        pieces.append(piece.text)
        if piece.finished:
            return pieces, piece.finished.reason
    return [*pieces, text.flush()], None


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@QUICK
@given(text=TEXT)
def test_characters_come_whole_and_together_they_are_the_text(decode, encode, text: str) -> None:
    assume("\ufffd" not in text)
    pieces, _ = _pieces(decode, encode(text))
    assert "".join(pieces) == decode(encode(text))
    assert all("\ufffd" not in piece for piece in pieces)


@QUICK
@given(token_ids=st.lists(st.integers(3, VOCAB - 1), max_size=60))
def test_also_what_is_no_text_adds_up(decode, token_ids: list[int]) -> None:
    """Bytes in any order, as a model may write them: pieces are what decoding all at once gives."""
    pieces, _ = _pieces(decode, token_ids)
    assert "".join(pieces) == decode([5, *token_ids])[len(decode([5])) :]


@QUICK
@given(
    text=st.text("abc é", max_size=30), stop=st.lists(st.text("abc é", min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_a_stop_string_ends_the_answer_and_none_of_it_shows(decode, encode, text: str, stop: list[str]) -> None:
    pieces, reason = _pieces(decode, encode(text), tuple(dict.fromkeys(stop)))
    shown = "".join(pieces)
    found = [at for at in (text.find(string) for string in stop) if at >= 0]
    assert (reason is FinishReason.STOP) == bool(found)
    if found:
        assert text.startswith(shown) and not any(string in shown for string in stop)
    else:
        assert shown == text
