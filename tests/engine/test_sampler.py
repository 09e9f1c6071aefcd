"""Sampling against transformers' own warpers: which tokens are left, and how often each is drawn."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from workbench.engine import sampler
from workbench.engine.sampler import sample, token_logprobs
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import Sequence
from workbench.engine.uniform import uniform

NUM_DRAWS = 1000


def make_sequence(prompt=(0,), answer=(), seed=0, index=0, **sampling):
    return Sequence(
        "r", index, [*prompt, *answer], len(prompt), SamplingParams(**sampling), seed, frozenset({0}), 10**6
    )


def random_logits(vocab, seed=0, spread=2.0):
    return torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.fixture
def even_draws(monkeypatch):
    """The random number of seed s is the middle of the s-th of NUM_DRAWS equal parts of [0, 1)."""
    monkeypatch.setattr(sampler, "uniform", lambda seed, index, position: (seed + 0.5) / NUM_DRAWS)


def shares(logits, **sampling):
    """How often each token is drawn, over all even draws at once in one batch."""
    sequences = [make_sequence(seed=seed, **sampling) for seed in range(NUM_DRAWS)]
    drawn = torch.tensor(sample(logits.expand(NUM_DRAWS, -1), sequences).token_ids)
    return drawn.bincount(minlength=logits.shape[0]) / NUM_DRAWS


def warped(logits, *warpers):
    """transformers' distribution."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    return torch.softmax(LogitsProcessorList(warpers)(ids, logits[None].clone())[0], dim=-1)


CASES = {
    "temperature": (dict(temperature=1.0), []),
    "cool": (dict(temperature=0.5), [TemperatureLogitsWarper(0.5)]),
    "hot": (dict(temperature=3.0), [TemperatureLogitsWarper(3.0)]),
    "top_k": (dict(temperature=1.0, top_k=7), [TopKLogitsWarper(7)]),
    "top_k of one": (dict(temperature=1.0, top_k=1), [TopKLogitsWarper(1)]),
    "top_k of more than there are": (dict(temperature=1.0, top_k=10**6), []),
    "top_p": (dict(temperature=1.0, top_p=0.8), [TopPLogitsWarper(0.8)]),
    "little top_p": (dict(temperature=1.0, top_p=1e-6), [TopPLogitsWarper(1e-6)]),
    "min_p": (dict(temperature=1.0, min_p=0.1), [MinPLogitsWarper(0.1)]),
    "min_p of one": (dict(temperature=1.0, min_p=1.0), [MinPLogitsWarper(1.0)]),
    "typical_p": (dict(temperature=1.0, typical_p=0.6), [TypicalLogitsWarper(0.6)]),
    "little typical_p": (dict(temperature=1.0, typical_p=0.05), [TypicalLogitsWarper(0.05)]),
    "top_k, top_p, min_p": (
        dict(temperature=0.8, top_k=12, top_p=0.9, min_p=0.05),
        [TemperatureLogitsWarper(0.8), TopKLogitsWarper(12), TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)],
    ),
}


@pytest.mark.parametrize("vocab", [40, 1500])
@pytest.mark.parametrize("name", CASES)
def test_tokens_are_drawn_as_transformers_would(name, vocab, even_draws):
    sampling, warpers = CASES[name]
    # Sharp enough for the likeliest to matter among many.
    logits = random_logits(vocab, seed=len(name), spread=2.0 if vocab == 40 else 4.0)
    expected, got = warped(logits, *warpers), shares(logits, **sampling)
    assert not got[expected == 0].any(), "a token was drawn that transformers rules out"
    # Inverting a cumulative distribution at even draws is right to one draw per token.
    assert (got - expected).abs().max() <= 1.01 / NUM_DRAWS
    assert (got[expected > 1.01 / NUM_DRAWS] > 0).all()


def test_top_p_over_more_tokens_than_are_looked_at_first(even_draws):
    logits = random_logits(5000, spread=0.1)
    expected, got = warped(logits, TopPLogitsWarper(0.9)), shares(logits, temperature=1.0, top_p=0.9)
    assert (expected > 0).sum() > 4000
    assert not got[expected == 0].any()
    assert (got - expected).abs().max() <= 1.01 / NUM_DRAWS


def test_the_real_random_numbers_draw_each_token_as_often_as_it_should_be():
    logits = random_logits(20)
    sequences = [make_sequence(seed=seed, temperature=1.0) for seed in range(4000)]
    drawn = torch.tensor(sample(logits.expand(4000, -1), sequences).token_ids).bincount(minlength=20)
    expected = torch.softmax(logits, -1) * 4000
    chi_square = ((drawn - expected) ** 2 / expected).sum()
    # 99.9 % of true samples with 19 degrees of freedom lie below.
    assert chi_square < 43.8


def test_uniform_numbers_are_even_and_differ_by_seed_answer_and_position():
    numbers = [uniform(seed, index, position) for seed in range(10) for index in range(5) for position in range(100)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    counts = torch.tensor(numbers).mul(10).long().bincount(minlength=10)
    assert ((counts - 500.0) ** 2 / 500).sum() < 27.9
    assert uniform(-1, 0, 0) == uniform(2**64 - 1, 0, 0)


def test_a_row_does_not_depend_on_the_rest_of_the_batch():
    logits = torch.stack([random_logits(1500, seed) for seed in range(8)])
    settings = [
        dict(temperature=1.0),
        dict(),
        dict(temperature=0.7, top_p=0.9),
        dict(temperature=1.5, top_k=5, repetition_penalty=1.3),
        dict(logit_bias={3: 50.0}),
        dict(temperature=1.0, typical_p=0.5),
        dict(temperature=1.0, min_p=0.05, presence_penalty=1.0),
        dict(no_repeat_ngram_size=1, logprobs=True),
    ]
    sequences = [make_sequence([1, 2, 3], [4, 5], seed=i, **s) for i, s in enumerate(settings)]
    together = sample(logits, sequences).token_ids
    alone = [sample(logits[i : i + 1], [sequence]).token_ids[0] for i, sequence in enumerate(sequences)]
    assert together == alone
    order = [5, 2, 7, 0, 6, 1, 4, 3]
    assert sample(logits[order], [sequences[i] for i in order]).token_ids == [together[i] for i in order]


def test_greedy_takes_the_likeliest_and_the_first_of_equals():
    logits = torch.zeros(3, 50)
    logits[0, 17], logits[1, [5, 9]] = 1.0, 2.0
    assert sample(logits, [make_sequence() for _ in range(3)]).token_ids == [17, 5, 0]


@pytest.mark.parametrize("temperature", [1e-6, 1e-46, 1e-300])
def test_a_vanishing_temperature_is_greedy(temperature):
    logits = random_logits(100)
    assert sample(logits[None], [make_sequence(temperature=temperature)]).token_ids == [int(logits.argmax())]


@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 100.0])
def test_extreme_temperatures_give_tokens(temperature):
    sequences = [make_sequence(temperature=temperature, seed=seed) for seed in range(50)]
    token_ids = sample(random_logits(100).expand(50, -1), sequences).token_ids
    assert all(0 <= token_id < 100 for token_id in token_ids)
    assert (len(set(token_ids)) == 1) == (temperature < 1)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}, {"repetition_penalty": 1.5}])
def test_rows_that_are_not_numbers_are_marked_and_no_others(wrong, sampling):
    logits = random_logits(30).repeat(2, 1)
    logits[0, 3] = wrong
    assert sample(logits, [make_sequence(**sampling), make_sequence(**sampling)]).is_nan == [True, False]


def test_tokens_that_the_model_rules_out_are_never_drawn(even_draws):
    logits = torch.full((30,), float("-inf"))
    logits[[4, 8]] = 0.0
    for sampling in ({}, {"top_p": 0.99}, {"top_k": 10}, {"min_p": 1e-9}, {"typical_p": 0.99}):
        got = shares(logits, temperature=1.0, **sampling)
        assert (got[4], got[8], got.sum()) == (0.5, 0.5, 1.0), sampling


def test_logits_stay_as_they_are():
    for dtype in (torch.float32, torch.bfloat16):
        logits = random_logits(30)[None].to(dtype)
        before = logits.clone()
        sample(logits, [make_sequence(temperature=1.0, repetition_penalty=2.0, logit_bias={1: 9}, top_p=0.5)])
        assert torch.equal(logits, before)


def test_logprobs_are_the_models_own_whatever_the_settings():
    logits = random_logits(30)
    sequence = make_sequence(
        temperature=0.3, top_k=2, logit_bias={4: 100.0}, logprobs=True, top_logprobs=3, repetition_penalty=1.9
    )
    tokens = sample(logits[None], [sequence])
    (logprobs,) = tokens.logprobs
    expected = torch.log_softmax(logits, -1)
    assert tokens.token_ids == [4] and logprobs.token_id == 4
    assert logprobs.logprob == pytest.approx(expected[4].item(), abs=1e-5)
    values, ids = expected.topk(3)
    assert [i for i, _ in logprobs.top] == ids.tolist()
    assert [p for _, p in logprobs.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_logprobs_come_only_where_they_were_asked_for():
    tokens = sample(random_logits(30).repeat(2, 1), [make_sequence(), make_sequence(logprobs=True)])
    assert tokens.logprobs[0] is None
    assert tokens.logprobs[1].top == ()


def test_more_top_logprobs_than_tokens_are_all_of_them():
    (logprobs,) = token_logprobs(torch.randn(1, 5), [2], 100)
    assert len(logprobs.top) == 5
    assert sum(math.exp(p) for _, p in logprobs.top) == pytest.approx(1.0)
