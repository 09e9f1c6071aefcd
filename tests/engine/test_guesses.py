"""Guessing ahead on a real model: the same tokens for every setting and seed, in fewer steps."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from engine.tiny_engine import build, engine_around, logits_of, random_prompt

from workbench.engine.config import EngineConfig, resolve_limits
from workbench.engine.sampling_params import SamplingParams
from workbench.errors import ConfigError

# Four tokens are likely, so that what came before comes again, and often does not.
FEW = {7: 60.0, 8: 60.0, 9: 60.0, 10: 60.0}
SETTINGS = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "logit_bias": FEW, "seed": 3},
    "filtered": {"temperature": 0.9, "logit_bias": FEW, "seed": 4, "top_p": 0.9, "top_k": 3},
    "penalised": {"repetition_penalty": 1.1, "presence_penalty": 0.2, "logit_bias": FEW},
    "told": {"temperature": 1.0, "logit_bias": FEW, "seed": 5, "logprobs": True, "top_logprobs": 2},
    "stopped": {"temperature": 1.0, "logit_bias": FEW, "seed": 6, "stop": ("9 10 9",), "min_tokens": 4},
    "several": {"temperature": 1.0, "logit_bias": FEW, "seed": 7, "n": 3},
}


@pytest.fixture(scope="module")
def llama():
    return build("llama")


@pytest.fixture(scope="module")
def drafts(llama):
    """Models that guess: the model itself, and one of another shape."""
    return {"itself": llama, "another": build("llama", num_hidden_layers=1, hidden_size=32)}


def _answers(client, prompts, params):
    running = [client.submit(prompt, params) for prompt in prompts]
    return [
        [
            (a.text, a.token_ids, a.finish_reason, [entry.token_id for entry in a.logprobs or ()])
            for a in one.results(60)
        ]
        for one in running
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_guesses_change_no_answer(llama, name):
    prompts = [random_prompt(9) * 3, random_prompt(30), random_prompt(4) * 5]
    params = SamplingParams(max_tokens=40, **SETTINGS[name])
    with engine_around(llama) as client:
        expected = _answers(client, prompts, params)
    # A pool in which they are preempted, and blocks and chunks that guesses cross.
    for limits in ({}, {"kv_cache_tokens": 256, "block_size": 4, "max_num_batched_tokens": 24}):
        with engine_around(llama, draft_tokens=5, **limits) as client:
            assert _answers(client, prompts, params) == expected
            stats = client.stats()
        assert 0 <= stats.accepted_draft_tokens_total <= stats.draft_tokens_total
        if name in ("sampled", "told", "several"):
            assert stats.accepted_draft_tokens_total > 5


@pytest.mark.parametrize("name", SETTINGS)
def test_a_draft_model_changes_no_answer(llama, drafts, name):
    prompts = [random_prompt(9) * 3, random_prompt(30), random_prompt(4) * 5]
    params = SamplingParams(max_tokens=40, **SETTINGS[name])
    with engine_around(llama) as client:
        expected = _answers(client, prompts, params)
        assert _answers(client, prompts[:1], params) == expected[:1]
    small = {"kv_cache_tokens": 256, "block_size": 4, "max_num_batched_tokens": 24}
    for which, limits in (("itself", small), ("another", {})):
        with engine_around(llama, drafts[which], draft_tokens=4, **limits) as client:
            assert _answers(client, prompts, params) == expected
            assert _answers(client, prompts[:1], params) == expected[:1]
            stats = client.stats()
        assert stats.draft_tokens_total > 20
        if which == "itself":
            # The same random numbers: sampled guesses are right too.
            assert stats.accepted_draft_tokens_total > 0.9 * stats.draft_tokens_total
        elif name == "greedy":
            assert stats.accepted_draft_tokens_total < 0.3 * stats.draft_tokens_total


def test_a_text_that_repeats_itself_comes_in_fewer_steps(llama):
    params = SamplingParams(max_tokens=60, logit_bias={7: 100.0}, ignore_eos=True)
    with engine_around(llama, draft_tokens=8) as client:
        assert client.submit(random_prompt(9), params).result(60).token_ids == (7,) * 60
        stats = client.stats()
    assert stats.steps_total < 20
    assert stats.accepted_draft_tokens_total > 40


@pytest.mark.parametrize("draft", [None, "another"])
def test_the_tokens_after_a_guess_have_the_models_own_distribution(llama, drafts, draft):
    # Every pair of the four came before, so there is always a guess.
    prompt, num_draws = [7, 7, 8, 7, 9, 7, 10, 8, 8, 9, 8, 10, 9, 9, 10, 10, 7], 400
    params = [SamplingParams(max_tokens=3, temperature=1.0, logit_bias=FEW, seed=seed) for seed in range(num_draws)]
    with engine_around(llama, drafts.get(draft), draft_tokens=3, max_num_seqs=4) as client:
        running = [client.submit(prompt, one) for one in params]
        drawn = Counter(generation.result(60).token_ids for generation in running)
        stats = client.stats()
    assert 20 < stats.accepted_draft_tokens_total < stats.draft_tokens_total - 20
    bias = torch.zeros(300).index_fill_(0, torch.tensor(list(FEW)), 60.0)

    def probabilities(*ids):
        return torch.softmax(logits_of(llama, [*prompt, *ids])[-1] + bias, -1)

    first, chi_square, num_outcomes = probabilities(), 0.0, 0
    for one in FEW:
        second = probabilities(one)
        for other in FEW:
            third = probabilities(one, other)
            for last in FEW:
                expected = float(first[one] * second[other] * third[last]) * num_draws
                if expected > 3:
                    chi_square += (drawn[one, other, last] - expected) ** 2 / expected
                    num_outcomes += 1
    # Its mean is the number of outcomes, its variance twice that; the seeds are fixed.
    assert chi_square < num_outcomes + 4 * (2 * num_outcomes) ** 0.5


def test_a_gpu_computes_more_rows_at_once():
    shape = {"model_max_context": 64, "kv_bytes_per_token": 1, "free_bytes": 10**6}
    rows = [resolve_limits(EngineConfig(draft_tokens=4), on_gpu=gpu, **shape).draft_rows for gpu in (False, True)]
    assert rows == [32, 64]


def test_what_says_nothing_or_both_is_refused():
    with pytest.raises(ConfigError, match="draft_tokens=-1"):
        EngineConfig(draft_tokens=-1)
    with pytest.raises(ConfigError, match="draft_tokens=0 and draft_model='x'"):
        EngineConfig(draft_tokens=0, draft_model="x")
