"""Looking up where steps overlap: what comes says how often it is right, and time what guesses must bring."""

from engine.test_prompt_lookup import make_sequence

from workbench.engine.guess_price import GuessPrice
from workbench.engine.measured_lookup import MeasuredLookup
from workbench.engine.step_plan import StepPlan


def measured(*, plain_s: float, guessed_s: float, num_answers: int = 1) -> GuessPrice:
    price = GuessPrice()
    for _ in range(10):
        price.note(num_answers, plain_s, guessed=False)
        price.note(num_answers, guessed_s, guessed=True)
    return price


def watch(drafter: MeasuredLookup, sequence, coming) -> list[bool]:
    """Whether it wants to guess before each of the coming tokens, none of which is guessed."""
    wanted = []
    for token_id in coming:
        wanted.append(drafter.wants([sequence]))
        sequence.token_ids.append(token_id)
    return wanted


def test_a_text_that_goes_on_repeating_is_worth_waiting_for_and_one_that_does_not_is_not():
    repeating, changing = MeasuredLookup(7), MeasuredLookup(7)
    assert watch(repeating, make_sequence([1, 2, 3] * 4), [1, 2, 3] * 4)[-1]
    # Each pair came before, and is followed by another token each time.
    pairs = [token for number in range(80) for token in (1, 2, 10 + number)]
    assert not any(watch(changing, make_sequence(pairs[:120]), pairs[120:])[10:])


def test_it_is_seen_without_guessing_that_a_text_begins_to_repeat():
    drafter, sequence = MeasuredLookup(7), make_sequence([1, 2, 10, 1, 2, 11])
    wanted = watch(drafter, sequence, [*(token for n in range(20) for token in (1, 2, 12 + n)), *[5, 6, 7] * 8])
    assert not wanted[-30] and wanted[-1]


def test_a_guess_must_bring_what_it_costs():
    repeating = [1, 2, 3] * 8
    for guessed_s, is_worth_it in ((1.2, True), (30.0, False)):
        drafter = MeasuredLookup(4, measured(plain_s=1.0, guessed_s=guessed_s))
        sequence = make_sequence(repeating)
        watch(drafter, sequence, repeating)
        assert drafter.wants([sequence]) == bool(drafter.draft({sequence: 4})) == is_worth_it


def test_one_of_many_does_not_hold_up_the_others():
    drafter = MeasuredLookup(2, measured(plain_s=1.0, guessed_s=1.5, num_answers=16))
    sequences = [make_sequence([1, 2, 3] * 8), *(make_sequence([n, n + 1]) for n in range(15))]
    assert not drafter.wants(sequences) and not drafter.draft(dict.fromkeys(sequences, 2))


def test_guesses_reach_as_far_as_they_are_likely_to_be_right():
    drafter, sequence = MeasuredLookup(7), make_sequence([1, 2, 3] * 8)
    watch(drafter, sequence, [1, 2, 3] * 8)
    assert drafter.draft({sequence: 7})[sequence] == (1, 2, 3, 1, 2, 3, 1)
    assert drafter.draft({sequence: 2})[sequence] == (1, 2)
    for _ in range(6):
        drafter.draft({sequence: 7})
        drafter.learn(sequence, 7, 0)
    assert len(drafter.draft({sequence: 7}).get(sequence, ())) < 3
    assert (drafter.num_drafted, drafter.num_accepted) == (42, 0)


def test_a_pause_of_the_machine_is_not_taken_for_the_price():
    price = measured(plain_s=1.0, guessed_s=1.2)
    before = price.of(1)
    price.note(1, 1000.0, guessed=True)
    assert before <= price.of(1) < before + 0.3


def test_a_bad_beginning_is_forgotten():
    price = measured(plain_s=1.0, guessed_s=50.0)
    assert price.of(1) > 10
    for _ in range(600):
        price.note(1, 1.0, guessed=False)
    assert price.of(1) == GuessPrice().of(1)


def test_steps_with_pieces_of_prompts_say_nothing():
    drafter = MeasuredLookup(4)
    for _ in range(4):
        drafter.note_step(StepPlan(num_tokens=9, num_decodes=1, num_drafts=2), 3, 50.0)
        drafter.note_step(StepPlan(num_tokens=9, num_decodes=1), 3, 1.0)
    assert drafter._price.of(1) == GuessPrice().of(1)
