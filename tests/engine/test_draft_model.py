"""A draft model over a fake model: any traffic gives every answer what it gets without, and its pool stays whole."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from engine.fake_runner import VOCAB_SIZE, FakeRunner, hashed_token, make_limits, repeated_token, spell
from engine.fake_traffic import EOS, LIMITS, answers_of, check_answers, make_request, run_random_traffic, run_until_idle

from workbench.engine.draft_model import DraftModel
from workbench.engine.engine import Engine
from workbench.engine.sampler import SampledTokens


def make_engine(limits, draft_model, *, model=hashed_token, max_context=None, runner=FakeRunner, overlaps=False):
    """An engine whose drafts are never judged by the time they take."""
    drafter = DraftModel(runner(limits, model=draft_model), limits, max_context or limits.max_context)
    engine = Engine(
        FakeRunner(limits, model=model, overlaps=overlaps),
        limits,
        decode=spell,
        vocab_size=VOCAB_SIZE,
        eos_token_ids=frozenset({EOS}),
        drafter=drafter,
        clock=lambda: 0.0,
    )
    return engine, drafter


def sometimes_right(token_ids, seed, index):
    return hashed_token(token_ids, seed, index) if len(token_ids) % 3 else 1


@pytest.mark.parametrize("draft_model", [hashed_token, sometimes_right, repeated_token])
@pytest.mark.parametrize("name", ["roomy", "preempting", "one context", "no prefixes"])
def test_guesses_of_a_draft_model_change_no_answer(name, draft_model):
    limits = replace(LIMITS[name], draft_tokens=4)
    num_drafted = num_accepted = num_preemptions = 0
    for seed in range(4):
        rng = random.Random(seed)
        engine, drafter = make_engine(limits, draft_model)
        requests, aborted, chunks = run_random_traffic(engine, rng, limits.max_context, 40, 0.3)
        check_answers(requests, answers_of(chunks), aborted, limits.max_context, hashed_token)
        assert drafter.pool.num_used_blocks == 0
        stats = engine.stats()
        num_drafted += stats.draft_tokens_total
        num_accepted += stats.accepted_draft_tokens_total
        num_preemptions += stats.preemptions_total
    assert num_drafted > 20 and (num_preemptions > 0) == (name != "roomy")
    if draft_model is hashed_token:
        # What is not right is past a stop string, which the draft does not look for.
        assert num_accepted > 0.8 * num_drafted
    elif draft_model is sometimes_right:
        assert 0.2 * num_drafted < num_accepted < 0.9 * num_drafted
    else:
        assert num_accepted < 0.2 * num_drafted


@pytest.mark.parametrize("draft_model", [hashed_token, sometimes_right])
@pytest.mark.parametrize("name", ["roomy", "preempting", "one context"])
def test_guesses_between_overlapping_steps_change_no_answer(name, draft_model):
    limits = replace(LIMITS[name], draft_tokens=4)
    num_drafted = num_accepted = 0
    for seed in range(4):
        rng = random.Random(seed)
        engine, drafter = make_engine(limits, draft_model, overlaps=True)
        requests, aborted, chunks = run_random_traffic(engine, rng, limits.max_context, 40, 0.3)
        check_answers(requests, answers_of(chunks), aborted, limits.max_context, hashed_token)
        assert drafter.pool.num_used_blocks == 0
        stats = engine.stats()
        num_drafted += stats.draft_tokens_total
        num_accepted += stats.accepted_draft_tokens_total
    assert num_drafted > 10
    assert num_accepted > (0.8 if draft_model is hashed_token else 0.2) * num_drafted


def test_a_right_draft_saves_steps_and_computes_a_shared_prompt_once():
    limits = make_limits(num_blocks=60, max_num_batched_tokens=64, max_prompt_tokens_beside_decodes=32, draft_tokens=4)
    engine, drafter = make_engine(limits, hashed_token)
    engine.add(make_request("r", range(10, 30), seed=1, n=3, max_tokens=18, ignore_eos=True))
    chunks = run_until_idle(engine)
    assert {len(answer) for answer in answers_of(chunks).values()} == {18}
    stats = engine.stats()
    # Four steps are measured without guesses; then come 2, 4, 4 ... of them.
    assert stats.steps_total < 13 and stats.accepted_draft_tokens_total == stats.draft_tokens_total > 20
    prompt_rows = sum(item.num_new_tokens for plan in drafter._runner.plans for item in plan.items if item.start < 20)
    assert prompt_rows < 40


def test_a_long_prompt_reaches_the_draft_in_pieces():
    limits = make_limits(num_blocks=60, max_num_batched_tokens=64, max_prompt_tokens_beside_decodes=6, draft_tokens=4)
    engine, drafter = make_engine(limits, hashed_token)
    engine.add(make_request("r", [3] * 20, max_tokens=18, ignore_eos=True))
    run_until_idle(engine)
    assert max(plan.num_tokens for plan in drafter._runner.plans) == 6
    assert engine.stats().accepted_draft_tokens_total > 4


def test_beyond_its_own_context_a_draft_model_guesses_nothing():
    limits = make_limits(num_blocks=60, draft_tokens=4)
    engine, drafter = make_engine(limits, hashed_token, max_context=20)
    engine.add(make_request("r", range(8), max_tokens=30, ignore_eos=True))
    while engine.has_work:
        engine.step()
        engine.check_integrity()
        running = engine.scheduler.running
        assert not running or running[0].num_tokens < 20 or engine.stats().draft_tokens_total == drafter.num_drafted
    assert max(item.end for plan in drafter._runner.plans for item in plan.items) <= 20
    assert drafter.pool.num_used_blocks == 0 and drafter.num_drafted > 0


class NotNumbers(FakeRunner):
    """A draft whose second guess is never a number."""

    def launch(self, plan):
        launched = super().launch(plan)
        tokens = launched.wait()
        is_nan = [plan.items[0].num_new_tokens == 1] * len(tokens.token_ids)
        return replace(launched, wait=lambda: SampledTokens(tokens.token_ids, tokens.logprobs, is_nan))


def test_a_draft_that_overflows_costs_its_guesses_only():
    limits = make_limits(num_blocks=60, draft_tokens=4)
    engine, drafter = make_engine(limits, hashed_token, runner=NotNumbers)
    engine.add(make_request("r", range(10), max_tokens=25, ignore_eos=True))
    chunks = run_until_idle(engine)
    assert len(chunks) == 25 and all(chunk.error is None for chunk in chunks)
    assert drafter.num_drafted > 0
