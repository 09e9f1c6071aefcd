"""Penalties and bans against transformers and against arithmetic written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from workbench.engine.logit_edits import edit_logits
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import Sequence

VOCAB = 12
EOS = 11
PROMPT, ANSWER = [1, 2, 3, 1, 2], [3, 3, 1, 2]


def edited(logits, prompt=PROMPT, answer=ANSWER, **sampling):
    sequence = Sequence("r", 0, [*prompt, *answer], len(prompt), SamplingParams(**sampling), 0, frozenset({EOS}), 99)
    changed = logits.clone()
    edit_logits(changed, sequence)
    return changed


@pytest.fixture
def logits():
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("penalty", [0.5, 1.3, 10.0])
def test_repetition_penalty_is_transformers(logits, penalty):
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([PROMPT + ANSWER]), logits[None].clone())[0]
    assert torch.equal(edited(logits, repetition_penalty=penalty), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 20])
def test_forbidden_ngrams_are_transformers(logits, size):
    expected = NoRepeatNGramLogitsProcessor(size)(torch.tensor([PROMPT + ANSWER]), logits[None].clone())[0]
    assert torch.equal(edited(logits, no_repeat_ngram_size=size), expected)


def test_random_forbidden_ngrams_are_transformers(logits):
    rng = np.random.default_rng(0)
    for _ in range(100):
        token_ids, size = rng.integers(0, 3, rng.integers(1, 20)).tolist(), int(rng.integers(1, 5))
        expected = NoRepeatNGramLogitsProcessor(size)(torch.tensor([token_ids]), logits[None].clone())[0]
        assert torch.equal(edited(logits, token_ids, [], no_repeat_ngram_size=size), expected)


def test_presence_and_frequency_count_the_answer_only(logits):
    expected = logits.numpy().copy()
    for token_id, count in {3: 2, 1: 1, 2: 1}.items():
        expected[token_id] -= 0.7 + 0.25 * count
    got = edited(logits, presence_penalty=0.7, frequency_penalty=0.25)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)
    assert torch.equal(edited(logits, answer=[], presence_penalty=0.7, frequency_penalty=0.25), logits)


def test_negative_penalties_favour_what_was_said(logits):
    got = edited(logits, presence_penalty=-1.0, frequency_penalty=-0.5)
    np.testing.assert_allclose(got[3], logits[3] + 1.0 + 2 * 0.5)


def test_bias_is_added_after_the_penalties(logits):
    got = edited(logits, repetition_penalty=2.0, logit_bias={2: 5.0, 7: -3.0})
    penalised = logits[2] / 2.0 if logits[2] > 0 else logits[2] * 2.0
    assert got[2] == penalised + 5.0
    assert got[7] == logits[7] - 3.0


def test_no_end_before_min_tokens(logits):
    early = edited(logits, min_tokens=5, stop_token_ids=[4])
    assert torch.isneginf(early).nonzero()[:, 0].tolist() == [4, EOS]
    assert torch.equal(edited(logits, min_tokens=4, stop_token_ids=[4]), logits)
    ignoring = edited(logits, min_tokens=5, stop_token_ids=[4], ignore_eos=True)
    assert torch.isneginf(ignoring).nonzero()[:, 0].tolist() == [4]


def test_stop_tokens_beyond_the_logits_are_harmless(logits):
    edited(logits, min_tokens=5, stop_token_ids=[VOCAB + 5])


def test_something_is_always_left(logits):
    got = edited(logits, list(range(VOCAB)), [], no_repeat_ngram_size=1)
    assert got.isfinite().any()
