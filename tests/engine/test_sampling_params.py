"""What a request may ask for, and how it is told what it may not."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from workbench.engine.sampling_params import SamplingParams
from workbench.errors import RequestError

NAN, INFINITE = math.nan, math.inf


def test_the_defaults_are_greedy_with_an_end():
    params = SamplingParams()
    assert params.is_greedy and not params.edits_logits
    assert params.max_tokens == 256


@pytest.mark.parametrize(
    "options",
    [
        *({"max_tokens": value} for value in (0, -1, 1.5, True, "9", NAN)),
        *({"temperature": value} for value in (NAN, INFINITE, -0.1, 100.1, None, "hot", True)),
        *({"top_k": value} for value in (-1, 2.0, None)),
        *({"top_p": value} for value in (0, -0.1, 1.1, NAN)),
        *({"min_p": value} for value in (-0.1, 1.1, NAN)),
        *({"typical_p": value} for value in (0, 1.1, NAN)),
        *({"repetition_penalty": value} for value in (0, -1, NAN, INFINITE)),
        *({"presence_penalty": value} for value in (-2.1, 2.1, NAN)),
        *({"frequency_penalty": value} for value in (-2.1, 2.1, NAN)),
        *({"no_repeat_ngram_size": value} for value in (-1, 1.5)),
        *({"seed": value} for value in ("a", 1.0, 2**64, -(2**63) - 1)),
        *({"min_tokens": value} for value in (-1, 300, None)),
        *({"n": value} for value in (0, 129, 1.0)),
        *({"top_logprobs": value} for value in (-1, 101, 5)),
        *({"prompt_logprobs": value} for value in (-1, 101, True)),
        *({"stop": value} for value in ("", [""], [1], 0, 5, b"abc", {"a": 1}, [None])),
        *({"stop_token_ids": value} for value in (0, 5, "12", [-1], ["1"], [1.0], [True])),
        *({"logit_bias": value} for value in ([1, 2], {5.7: 1}, {True: 1}, {"a": 1}, {-1: 1}, {"-1": 1}, {1: 101})),
        *({"logit_bias": value} for value in ({1: NAN}, {1: "2"}, {"²": 1}, 3)),
        *({"ignore_eos": value} for value in (1, "yes", None)),
        *({"logprobs": value} for value in (1, 5, None)),
        *({"skip_special_tokens": value} for value in (0, "no")),
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_by_its_name(options):
    (name,) = options
    with pytest.raises(RequestError, match=name):
        SamplingParams(**options)


def test_an_unknown_name_is_refused_with_the_valid_ones():
    with pytest.raises(RequestError) as caught:
        SamplingParams.from_options({"temprature": 1.0})
    assert "temprature" in str(caught.value)
    for field in fields(SamplingParams):
        assert field.name in str(caught.value)


def test_several_spellings_mean_the_same():
    assert SamplingParams(stop="a") == SamplingParams(stop=["a"]) == SamplingParams(stop=("a",))
    assert SamplingParams(stop=None, stop_token_ids=None, logit_bias=None) == SamplingParams()
    assert SamplingParams(logit_bias={"5": 1}) == SamplingParams(logit_bias={5: 1.0})
    assert SamplingParams(stop_token_ids=[3]).stop_token_ids == (3,)


def test_no_tokens_are_fine_where_the_prompt_is_scored():
    assert SamplingParams(max_tokens=0, prompt_logprobs=0).max_tokens == 0


def test_no_bound_on_the_length_is_allowed():
    assert SamplingParams(max_tokens=None, min_tokens=10**6).max_tokens is None
