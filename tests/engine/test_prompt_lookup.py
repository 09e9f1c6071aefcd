"""Guesses repeat what followed before, grow with success, and pause after failures."""

from workbench.engine.prompt_lookup import PromptLookup
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import Sequence


def make_sequence(token_ids):
    return Sequence("r", 0, list(token_ids), 1, SamplingParams(), 0, frozenset(), 10**6)


def draft(drafter, sequence, most):
    return drafter.draft({sequence: most}).get(sequence, ())


def test_it_guesses_what_followed_the_same_tokens_last():
    drafter = PromptLookup(8)
    sequence = make_sequence([1, 2, 3, 4, 9, 9, 1, 2, 5, 6, 7, 1, 2])
    # "1 2" came twice; the later one counts.
    assert draft(drafter, sequence, 8) == (5, 6)


def test_a_longer_run_beats_a_later_one():
    sequence = make_sequence([1, 2, 3, 4, 70, 71, 3, 4, 80, 81, 1, 2, 3, 4])
    assert draft(PromptLookup(8), sequence, 8) == (70, 71)


def test_a_repetition_goes_on_past_the_newest_token():
    drafter = PromptLookup(8)
    sequence = make_sequence([7, 8, 9, 7, 8, 9, 7, 8])
    assert draft(drafter, sequence, 8) == (9, 7)
    drafter.learn(sequence, 2, 2)
    sequence.token_ids += [9, 7, 8]
    assert draft(drafter, sequence, 8) == (9, 7, 8, 9)
    assert draft(drafter, sequence, 3) == (9, 7, 8)


def test_nothing_new_gives_no_guess():
    drafter = PromptLookup(4)
    for ids in ([5], [5, 6], list(range(40))):
        assert draft(drafter, make_sequence(ids), 4) == ()
    assert draft(drafter, make_sequence([1, 2, 3, 1, 2]), 0) == ()


def test_wrong_guesses_make_it_pause_longer_each_time_and_right_ones_end_that():
    drafter = PromptLookup(8)
    sequence = make_sequence([1, 2] * 10)

    def tokens_until_the_next_guess():
        count = 0
        while not draft(drafter, sequence, 8):
            sequence.token_ids.append(sequence.token_ids[-2])
            count += 1
        return count

    pauses = []
    for accepted in (0, 0, 0, 2, 0):
        num_drafted = len(draft(drafter, sequence, 8))
        assert num_drafted
        drafter.learn(sequence, num_drafted, accepted)
        pauses.append(tokens_until_the_next_guess())
    assert pauses == [4, 8, 16, 0, 4]
    assert (drafter.num_drafted, drafter.num_accepted) == (12, 2)


def test_structures_and_plugins_are_left_alone():
    for name in ("matcher", "plugins"):
        sequence = make_sequence([1, 2, 3, 1, 2])
        setattr(sequence, name, object())
        assert draft(PromptLookup(4), sequence, 4) == ()
