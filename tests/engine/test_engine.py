"""The engine over a fake model: any traffic gives every answer what it would get alone, and nothing leaks."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch
from engine.fake_runner import VOCAB_SIZE, FakeRunner, hashed_token, make_limits, repeated_token, spell
from engine.fake_traffic import (
    EOS,
    LIMITS,
    alone,
    answers_of,
    check_answers,
    make_request,
    run_random_traffic,
    run_until_idle,
    token_ids_of,
)

from workbench.engine.engine import Engine
from workbench.engine.measured_lookup import MeasuredLookup
from workbench.engine.sequence import FinishReason, SequenceStatus
from workbench.errors import InferenceError, OutOfMemoryError, RequestError


def make_engine(limits=None, *, decode=spell, eos=frozenset({EOS}), drafter=None, clock=None, **runner_options):
    limits = limits or make_limits()
    runner = FakeRunner(limits, **runner_options)
    more = {"drafter": drafter} | ({} if clock is None else {"clock": clock})
    return Engine(runner, limits, decode=decode, vocab_size=VOCAB_SIZE, eos_token_ids=eos, **more), runner


@pytest.mark.parametrize("model", [hashed_token, repeated_token], ids=["mostly wrong", "mostly right"])
@pytest.mark.parametrize("name", LIMITS)
def test_guesses_change_no_answer(name, model):
    limits = replace(LIMITS[name], draft_tokens=4)
    num_drafted = num_accepted = 0
    for seed in range(6):
        rng = random.Random(seed)
        engine, _ = make_engine(limits, model=model)
        requests, aborted, chunks = run_random_traffic(engine, rng, limits.max_context, 40, 0.3)
        check_answers(requests, answers_of(chunks), aborted, limits.max_context, model)
        stats = engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)
        num_drafted += stats.draft_tokens_total
        num_accepted += stats.accepted_draft_tokens_total
    if name == "token by token":  # two tokens fill a step, so that there is next to no room
        return
    assert num_drafted > 0
    if model is repeated_token:
        assert num_accepted > 0.4 * num_drafted


@pytest.mark.parametrize("model", [hashed_token, repeated_token], ids=["mostly wrong", "mostly right"])
@pytest.mark.parametrize("name", LIMITS)
def test_guesses_between_overlapping_steps_change_no_answer(name, model):
    limits = replace(LIMITS[name], draft_tokens=4)
    num_accepted = num_overlapped = num_awaited = 0
    for seed in range(6):
        rng = random.Random(seed)
        # By a clock like that guesses pay now and then.
        clock = itertools.accumulate(iter(rng.random, None))
        engine, runner = make_engine(
            limits, model=model, overlaps=True, drafter=MeasuredLookup(4), clock=lambda clock=clock: next(clock)
        )
        requests, aborted, chunks = run_random_traffic(engine, rng, limits.max_context, 40, 0.3)
        check_answers(requests, answers_of(chunks), aborted, limits.max_context, model)
        stats = engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)
        num_accepted += stats.accepted_draft_tokens_total
        num_overlapped += runner.num_overlapped
        num_awaited += sum(plan.was_awaited for plan in runner.plans)
    assert num_overlapped > 0
    if model is repeated_token and name != "token by token":
        assert num_accepted > 20 and num_awaited > 0


@pytest.mark.parametrize("num_lanes", [1, 2], ids=["a lane", "two lanes"])
@pytest.mark.parametrize("overlaps", [False, True], ids=["in turn", "overlapping"])
@pytest.mark.parametrize("name", LIMITS)
def test_random_traffic_gives_every_answer_what_it_gets_alone(name, overlaps, num_lanes):
    limits, num_preemptions, num_overlapped, num_hits = LIMITS[name], 0, 0, 0
    for seed in range(6):
        rng = random.Random(seed)
        engine, runner = make_engine(limits, overlaps=overlaps, num_lanes=num_lanes)
        requests, aborted, chunks = run_random_traffic(engine, rng, limits.max_context, 60, 0.4)
        assert runner.most_in_flight == num_lanes + overlaps
        check_answers(requests, answers_of(chunks), aborted, limits.max_context)
        stats = engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)
        num_preemptions += stats.preemptions_total
        num_hits += stats.prefix_hit_tokens_total
        num_overlapped += runner.num_overlapped
    assert (num_preemptions > 0) == (name in ("preempting", "one context", "no prefixes", "token by token"))
    assert (num_hits > 0) == limits.enable_prefix_caching
    assert (num_overlapped > 0) == overlaps


def test_requests_start_in_the_order_of_their_arrival():
    engine, _ = make_engine(make_limits(num_blocks=12, max_num_seqs=3), eos=frozenset())
    rng = random.Random(1)
    for number in range(20):
        prompt = [rng.randrange(VOCAB_SIZE) for _ in range(rng.randrange(1, 30))]
        engine.add(make_request(f"r{number}", prompt, max_tokens=rng.randrange(1, 9)))
    order = []
    while engine.has_work:
        order += [chunk.request_id for chunk in engine.step() if chunk.request_id not in order]
    assert order == [f"r{number}" for number in range(20)]


def test_a_stream_goes_on_at_every_step_while_long_prompts_arrive():
    engine, runner = make_engine(make_limits(num_blocks=200), eos=frozenset())
    engine.add(make_request("stream", [1, 2], max_tokens=30))
    engine.step()
    num_streamed = 0
    for number in range(20):
        engine.add(make_request(f"long{number}", [number] * 38, max_tokens=1))
        num_streamed += sum(chunk.request_id == "stream" for chunk in engine.step())
        # Two tokens' blocks of prompt beside the decode, as the limit says.
        assert runner.plans[-1].num_tokens - 1 <= engine.limits.max_prompt_tokens_beside_decodes
    assert num_streamed == 20


def test_a_second_answer_shares_the_prompt_of_the_first():
    engine, runner = make_engine(make_limits(num_blocks=40, max_num_batched_tokens=64), eos=frozenset())
    prompt = list(range(21))
    engine.add(make_request("r", prompt, n=3, max_tokens=2))
    chunks = run_until_idle(engine)
    computed = sum(item.num_prompt_tokens for plan in runner.plans for item in plan.items)
    # Five full blocks are shared; what lies beyond them is computed once more by each.
    assert computed == len(prompt) + 2 * (len(prompt) - 20)
    cached = [answer[-1].usage.num_cached_tokens for _, answer in sorted(answers_of(chunks).items())]
    assert cached == [0, 20, 20]


@pytest.mark.parametrize("end", ["abort", "fail"])
def test_further_answers_do_not_wait_for_a_first_one_that_is_gone(end):
    def decode(token_ids, skip=True):
        if end == "fail" and token_ids[-1] != 1:
            raise ValueError("no such text")
        return spell(token_ids)

    engine, _ = make_engine(decode=decode, eos=frozenset())
    engine.add(make_request("r", [1] * 20, n=2, max_tokens=3))
    engine.step()
    if end == "abort":
        first = next(iter(engine.scheduler.running))
        engine.scheduler.finish(first)
        del engine._answers[first]
    chunks = run_until_idle(engine)
    assert answers_of(chunks)["r", 1][-1].finish_reason is (
        FinishReason.LENGTH if end == "abort" else FinishReason.ERROR
    )


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("num_steps", range(7))
def test_abort_at_any_step_gives_the_blocks_back_and_one_last_chunk(num_steps, overlaps):
    engine, _ = make_engine(make_limits(max_num_batched_tokens=8), overlaps=overlaps, eos=frozenset())
    engine.add(make_request("first", [1] * 20, max_tokens=10))
    other = make_request("other", [2] * 5, max_tokens=4, ignore_eos=True)
    engine.add(other)
    chunks = [chunk for _ in range(num_steps) for chunk in engine.step()]
    chunks += engine.abort("first")
    assert chunks[-1].finish_reason is FinishReason.ABORT
    assert engine.abort("first") == []
    engine.check_integrity()
    chunks += run_until_idle(engine)
    assert [c.finish_reason for c in chunks if c.request_id == "first" and c.finish_reason] == [FinishReason.ABORT]
    assert token_ids_of(answers_of(chunks)["other", 0]) == alone(other, 0, 40)[0]
    assert engine.stats().kv_blocks_used == 0


def test_abort_of_one_that_waits_again_after_preemption():
    engine, _ = make_engine(make_limits(num_blocks=10), eos=frozenset())
    for name in "ab":
        engine.add(make_request(name, [ord(name) % 40] * 15, max_tokens=20))
    while engine.stats().preemptions_total == 0:
        engine.step()
    waiting = engine.scheduler.waiting[0]
    assert waiting.num_generated_tokens > 0
    (last,) = engine.abort(waiting.request_id)
    assert last.usage.num_generated_tokens == waiting.num_generated_tokens
    assert waiting.status is SequenceStatus.FINISHED
    run_until_idle(engine)
    assert engine.stats().kv_blocks_used == 0


def test_a_request_whose_text_fails_does_not_reach_the_others():
    def decode(token_ids, skip=True):
        if token_ids[:1] == [13]:
            raise ValueError("no such text")
        return spell(token_ids)

    engine, _ = make_engine(decode=decode, eos=frozenset())
    engine.add(make_request("good", [1, 2, 3], max_tokens=4))
    engine.step()
    with pytest.raises(ValueError):
        engine.add(make_request("bad", [13], max_tokens=4, n=2))
    engine.check_integrity()
    assert engine.abort("bad") == []
    answers = answers_of(run_until_idle(engine))
    assert answers["good", 0][-1].finish_reason is FinishReason.LENGTH


def test_a_request_whose_text_fails_later_ends_with_that_error():
    def decode(token_ids, skip=True):
        if len(token_ids) > 6 and token_ids[0] == 13:
            raise ValueError("no such text")
        return spell(token_ids)

    engine, _ = make_engine(decode=decode, eos=frozenset())
    engine.add(make_request("bad", [13], max_tokens=20))
    engine.add(make_request("good", [1, 2, 3], max_tokens=20))
    answers = answers_of(run_until_idle(engine))
    assert answers["good", 0][-1].finish_reason is FinishReason.LENGTH
    last = answers["bad", 0][-1]
    assert last.finish_reason is FinishReason.ERROR
    assert isinstance(last.error, InferenceError) and "no such text" in str(last.error)
    assert engine.stats().kv_blocks_used == 0


def test_abort_of_a_request_whose_text_fails_still_ends_it():
    calls = []

    def decode(token_ids, skip=True):
        calls.append(token_ids)
        if len(calls) > 3:
            raise ValueError("no such text")
        return spell(token_ids)

    engine, _ = make_engine(decode=decode, eos=frozenset())
    engine.add(make_request("r", [1, 2, 3], max_tokens=20))
    engine.step()
    calls += [None] * 3
    (last,) = engine.abort("r")
    assert last.finish_reason is FinishReason.ABORT
    engine.check_integrity()
    assert not engine.has_work


def test_a_token_that_is_not_a_number_fails_its_request_only():
    engine, runner = make_engine(eos=frozenset())
    engine.add(make_request("bad", [1], max_tokens=9))
    engine.add(make_request("good", [2], max_tokens=9))
    launch = runner.launch

    def launch_with_nan(plan):
        step = launch(plan)
        tokens = step.wait()
        for row, item in enumerate(step.sampled):
            tokens.is_nan[row] = item.sequence.request_id == "bad" and item.end == 4
        return step

    runner.launch = launch_with_nan
    answers = answers_of(run_until_idle(engine))
    assert "not a number" in str(answers["bad", 0][-1].error)
    assert sum(len(chunk.token_ids) for chunk in answers["bad", 0]) == 3
    assert answers["good", 0][-1].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("overlaps", [False, True])
def test_out_of_memory_lets_the_youngest_wait_and_changes_no_text(overlaps):
    def fails_at(plan):
        if len(plan.items) > 2:
            raise torch.OutOfMemoryError("three are too many")

    engine, _ = make_engine(fails_at=fails_at, overlaps=overlaps)
    requests = [make_request(f"r{i}", [i] * 6, max_tokens=5 + i, ignore_eos=True) for i in range(5)]
    for request in requests:
        engine.add(request)
    answers = answers_of(run_until_idle(engine, max_steps=100))
    for request in requests:
        assert token_ids_of(answers[request.request_id, 0]) == alone(request, 0, 40)[0]


def test_out_of_memory_of_a_request_that_runs_alone_ends_it_and_not_the_next():
    def fails_at(plan):
        if any(item.sequence.request_id == "big" for item in plan.items):
            raise torch.OutOfMemoryError("it is too big")

    engine, _ = make_engine(fails_at=fails_at)
    engine.add(make_request("big", [1] * 12, max_tokens=2))
    engine.add(make_request("small", [2] * 6, max_tokens=2, ignore_eos=True))
    answers = answers_of(run_until_idle(engine, max_steps=50))
    assert isinstance(answers["big", 0][-1].error, OutOfMemoryError)
    assert answers["small", 0][-1].finish_reason is FinishReason.LENGTH


def test_out_of_memory_beside_the_last_token_of_the_only_request():
    def fails_at(plan):
        if plan.items[0].start == 3:
            raise torch.OutOfMemoryError("now")

    engine, _ = make_engine(fails_at=fails_at, overlaps=True, eos=frozenset(range(VOCAB_SIZE)))
    engine.add(make_request("r", [1, 2, 3], max_tokens=9))
    (last,) = run_until_idle(engine)
    assert (last.finish_reason, last.error) == (FinishReason.STOP, None)


def test_ids_outside_the_vocabulary_and_empty_prompts_are_refused():
    engine, _ = make_engine()
    for prompt in ([VOCAB_SIZE], [-1], []):
        with pytest.raises(RequestError):
            engine.add(make_request("r", prompt))
    assert not engine.has_work


def test_fail_all_ends_every_request_and_the_engine_goes_on():
    engine, _ = make_engine(overlaps=True, eos=frozenset())
    for number in range(6):
        engine.add(make_request(f"r{number}", [number] * 9, n=2))
    engine.step()
    chunks = engine.fail_all(InferenceError("enough"))
    assert len(chunks) == 12
    assert {str(chunk.error) for chunk in chunks} == {"enough"}
    engine.check_integrity()
    assert not engine.has_work
    engine.add(make_request("next", [1], max_tokens=2))
    assert run_until_idle(engine)[-1].finish_reason is FinishReason.LENGTH


def test_figures_count_what_happened():
    engine, _ = make_engine(eos=frozenset())
    engine.add(make_request("a", [1] * 9, max_tokens=3))
    engine.add(make_request("b", [1] * 9, max_tokens=3, n=2))
    engine.step()
    stats = engine.stats()
    assert stats.num_running + stats.num_waiting == 3
    assert stats.kv_blocks_used > 0
    run_until_idle(engine)
    engine.add(make_request("c", [1] * 9, max_tokens=3))
    run_until_idle(engine)
    stats = engine.stats("mine")
    assert (stats.requests_total, stats.requests_finished_total, stats.finished_by_reason) == (3, 3, {"length": 4})
    assert stats.generated_tokens_total == 12
    # Two whole blocks of nine tokens can be found again.
    assert stats.prompt_tokens_total + stats.prefix_hit_tokens_total == 4 * 9
    assert stats.prefix_hit_tokens_total >= 8
    assert stats.reply_id == "mine"
