"""Tokens as bytes, and log-probabilities that never run ahead of the text."""

from __future__ import annotations

import pytest

from workbench.engine import Chunk, FinishReason, TokenLogprobs
from workbench.models.tokenizer import load_tokenizer
from workbench.server.text_offsets import TextOffsets
from workbench.server.token_logprobs import LogprobAligner, completion_logprobs
from workbench.server.token_text import TokenText


@pytest.fixture(scope="module")
def tokenizer(embedded_model_folder):
    return load_tokenizer(embedded_model_folder)


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return TokenText(tokenizer)


@pytest.mark.parametrize(
    "text", ["Hello there", " \n\t x", "\u00e9\u4e2d\U0001f600", "a\u0300", "<|im_end|>", "\x00\x7f"]
)
def test_the_bytes_of_the_tokens_are_the_text(tokenizer, tokens, text):
    ids = tokenizer.encode(text)
    assert b"".join(map(tokens.bytes_of, ids)).decode() == text


def test_what_is_not_text_is_shown_as_bytes(tokenizer, tokens):
    ids = tokenizer.encode("\U0001f9ff")
    assert len(ids) > 1 and all(tokens.text_of(i).startswith("bytes:\\x") for i in ids)
    assert tokens.bytes_of(10**6) == b""


def test_no_token_is_longer_than_the_longest(tokenizer, tokens):
    assert max(len(tokens.bytes_of(i)) for i in range(tokenizer.vocab_size)) <= tokens.longest_bytes


def chunk(text="", token_ids=(), reason=None, stop=None):
    return Chunk(
        "r",
        0,
        text=text,
        token_ids=tuple(token_ids),
        logprobs=tuple(TokenLogprobs(i, -1.0) for i in token_ids),
        finish_reason=reason,
        stop_reason=stop,
    )


def given(aligner, *chunks):
    return [[entry.token_id for entry in aligner.take(each)] for each in chunks]


def test_an_entry_comes_with_the_end_of_its_text(tokenizer, tokens):
    hello, there = tokenizer.encode("Hello there")
    aligner = LogprobAligner(tokens, frozenset(), frozenset())
    pieces = [chunk("Hel", [hello]), chunk("lo", []), chunk(" there", [there])]
    assert given(aligner, *pieces) == [[], [hello], [there]]


def test_what_was_held_back_comes_at_the_natural_end(tokenizer, tokens):
    (hello,) = tokenizer.encode("Hello")
    aligner = LogprobAligner(tokens, frozenset(), frozenset())
    assert given(aligner, chunk("", [hello]), chunk("", [], FinishReason.LENGTH)) == [[], [hello]]


def test_what_belongs_to_a_stop_string_never_comes(tokenizer, tokens):
    hello, there = tokenizer.encode("Hello there")
    aligner = LogprobAligner(tokens, frozenset(), frozenset())
    last = chunk(" t", [there], FinishReason.STOP, "here")
    assert given(aligner, chunk("Hello", [hello]), last) == [[hello], []]


def test_the_token_that_ends_an_answer_is_not_part_of_it(tokenizer, tokens):
    (hello,) = tokenizer.encode("Hello")
    aligner = LogprobAligner(tokens, frozenset({2}), frozenset({2}))
    assert given(aligner, chunk("Hello", [hello]), chunk("", [2], FinishReason.STOP)) == [[hello], []]


def test_tokens_without_text_do_not_hold_up_the_others(tokenizer, tokens):
    (hello,) = tokenizer.encode("Hello")
    aligner = LogprobAligner(tokens, frozenset(), frozenset({1}))
    assert given(aligner, chunk("", [1]), chunk("Hello", [hello])) == [[1], [hello]]


def test_completion_logprobs_know_where_each_token_begins(tokenizer, tokens):
    ids = tokenizer.encode("Hello there")
    entries = [ids[0], TokenLogprobs(ids[1], -0.5, ((ids[0], -0.1),))]
    reply = completion_logprobs(entries, tokens, with_top=True, offsets=[3, 8])
    assert reply.tokens == ["Hello", " there"] and reply.text_offset == [3, 8]
    assert reply.token_logprobs == [None, -0.5]
    assert reply.top_logprobs == [None, {"Hello": -0.1, " there": -0.5}]


def test_offsets_count_characters_that_several_tokens_share(tokenizer, tokens):
    text = "Caf\u00e9 \U0001f600 na\u00efve \u65e5\u672c\u8a9e end"
    ids = tokenizer.encode(text)
    whole, piecewise = TextOffsets(tokens, frozenset()), TextOffsets(tokens, frozenset())
    begins = whole.of_prompt(ids, text)
    assert begins == [begin for i in ids for begin in piecewise.of_answer([i])]
    num_split = 0
    for token_id, begin in zip(ids, begins, strict=True):
        spelled = tokens.text_of(token_id)
        num_split += spelled.startswith("bytes:")
        assert spelled.startswith("bytes:") or text[begin:].startswith(spelled)
    assert num_split > 0
    # The answer begins behind the prompt, and what is no text takes no place.
    (end,) = tokenizer.encode(" end")
    silent = TextOffsets(tokens, frozenset({1}))
    silent.of_prompt(ids, text)
    assert silent.of_answer([end, 1, end]) == [len(text), len(text) + 4, len(text) + 4]


def test_bytes_that_are_no_character_count_as_the_one_that_stands_for_them(tokenizer, tokens):
    emoji, (a,) = tokenizer.encode("\U0001f600"), tokenizer.encode("a")
    assert len(emoji) > 1
    assert TextOffsets(tokens, frozenset()).of_answer([emoji[0], a, a]) == [0, 1, 2]
