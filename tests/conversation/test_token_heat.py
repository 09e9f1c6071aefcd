import math

import pytest

from workbench.conversation import ScoredToken, agreement, perplexity, scored_tokens
from workbench.conversation.token_heat import entropy_nats, texts_of
from workbench.engine import TokenLogprobs

SPELLED = {1: b"Hi", 2: b" \xe2\x82", 3: b"\xac", 4: b"!"}


def test_tokens_carry_their_alternatives_and_how_open_the_choice_was():
    scores = [TokenLogprobs(1, math.log(0.5), ((1, math.log(0.5)), (4, math.log(0.25))))]
    (token,) = scored_tokens(scores, SPELLED.__getitem__)
    assert (token.text, token.rank, token.token_id) == ("Hi", 1, 1)
    assert token.probability == pytest.approx(0.5)
    assert [alternative.text for alternative in token.alternatives] == ["Hi", "!"]
    # The quarter that is left counts as one more choice.
    assert token.entropy_nats == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))


def test_a_token_outside_of_the_alternatives_has_no_rank():
    (token,) = scored_tokens([TokenLogprobs(1, -3.0, ((4, -0.1),))], SPELLED.__getitem__)
    assert token.rank is None


def test_a_scored_text_begins_with_a_token_that_nothing_precedes():
    tokens = scored_tokens([None, TokenLogprobs(4, -1.0)], SPELLED.__getitem__, token_ids=[1, 4])
    assert [(token.text, token.logprob) for token in tokens] == [("Hi", None), ("!", -1.0)]
    assert tokens[1].entropy_nats is None
    assert perplexity(tokens) == pytest.approx(math.e)
    assert perplexity(tokens[:1]) is None


def test_the_bytes_of_a_character_go_to_the_token_that_ends_it():
    tokens = scored_tokens([TokenLogprobs(i, -1.0) for i in (1, 2, 3, 4)], SPELLED.__getitem__)
    assert [token.text for token in tokens] == ["Hi", " ", "€", "!"]


@pytest.mark.parametrize("text", ["", "plain", "€uro", "日本語", "👩‍🚀 and ñ", "é" * 7])
def test_token_texts_make_up_the_whole_however_it_is_cut(text):
    spelled = text.encode()
    for size in (1, 2, 3, 5):
        pieces = [spelled[at : at + size] for at in range(0, len(spelled), size)]
        assert "".join(texts_of(pieces)) == text


def test_bytes_that_are_no_text_are_shown_as_such():
    assert texts_of([b"a\xff", b"b", b"\xe2"]) == ["a\ufffd", "b", "\ufffd"]


def test_entropy_is_never_negative_and_at_most_that_of_equal_chances():
    assert entropy_nats([0.0]) == pytest.approx(0.0)
    assert entropy_nats([math.log(0.25)] * 4) == pytest.approx(math.log(4))
    assert entropy_nats([]) is None


def test_agreement_of_two_answers():
    same = agreement(["a", "b"], ["a", "b"])
    assert (same.is_equal, same.line()) == (True, "the same 2 tokens")
    differ = agreement(["a", "b", "c", "d"], ["a", "x", "c", "d"])
    assert (differ.num_equal_at_start, differ.share, differ.is_equal) == (1, 0.75, False)
    assert differ.line() == "75% of the tokens agree, the first 1 without a difference"
    assert not agreement(["a"], ["a", "b"]).is_equal
    assert agreement([], []).is_equal


def test_scored_tokens_are_values():
    assert ScoredToken("a", -1.0) == ScoredToken("a", -1.0)
