"""How far a draft model guesses, and when it rests because plain steps bring more."""

from workbench.engine.draft_pace import DraftPace, DraftPayoff


def share_of_guessed_steps(num_steps, *, plain_s, guessed_s, guessed_tokens, num_answers=1):
    payoff, num_guessed = DraftPayoff(), 0
    for _ in range(num_steps):
        guessed = payoff.pays(num_answers)
        num_guessed += guessed
        num_tokens, seconds = (guessed_tokens, guessed_s) if guessed else (num_answers, plain_s)
        payoff.note(num_answers, num_tokens, seconds, guessed=guessed)
    return num_guessed / num_steps


def test_guesses_that_pay_are_made_in_almost_every_step():
    assert share_of_guessed_steps(4000, plain_s=1.0, guessed_s=1.8, guessed_tokens=2) > 0.95


def test_guesses_that_cost_more_than_they_bring_are_made_ever_more_rarely():
    share = share_of_guessed_steps(20_000, plain_s=1.0, guessed_s=3.0, guessed_tokens=1)
    # Each such step costs two steps more.
    assert 0 < 2 * share < 0.03


def test_steps_beside_prompts_say_nothing_and_keep_nobody_from_guessing():
    payoff = DraftPayoff()
    for _ in range(8):
        payoff.note(1, 1, None, guessed=False)
    assert payoff.pays(1)
    for _ in range(16):
        payoff.note(1, 1, 9.0, guessed=True)
    # What a token takes without is not known yet.
    assert not payoff.pays(1)
    for _ in range(4):
        payoff.note(1, 1, 1.0, guessed=False)
    assert payoff.pays(1)


def test_batches_of_another_size_are_judged_by_themselves():
    payoff = DraftPayoff()
    for size, seconds in ((1, 1.0), (8, 9.0)):
        for _ in range(40):
            guessed = payoff.pays(size)
            payoff.note(size, 2 * size if guessed else size, (1.5 if guessed else 1.0) * seconds, guessed=guessed)
    for _ in range(16):
        payoff.note(8, 8, 20.0, guessed=True)
    assert payoff.pays(1) and not payoff.pays(8)


def test_what_the_model_does_is_looked_at_anew_when_it_became_faster():
    payoff = DraftPayoff()
    guessed_steps = []
    for number in range(3000):
        plain_s = 10.0 if number < 100 else 1.0
        guessed = payoff.pays(1)
        guessed_steps.append(guessed)
        payoff.note(1, 2 if guessed else 1, (plain_s + 3.0) if guessed else plain_s, guessed=guessed)
    assert sum(guessed_steps[50:100]) > 40 and sum(guessed_steps[-1000:]) < 100


def test_right_guesses_reach_further_and_wrong_ones_less_far():
    pace = DraftPace(most=6)
    reaches = []
    for num_accepted in (2, 4, 6, 3, 0):
        reaches.append(pace.reach(100))
        pace.learn(100, reaches[-1], num_accepted)
    assert reaches == [2, 4, 6, 6, 5] and pace.reach(100) == 4


def test_an_answer_that_is_guessed_wrong_again_and_again_pauses_longer_each_time():
    pace, num_tokens, guessed_at = DraftPace(most=4), 0, []
    while num_tokens < 300:
        reach = pace.reach(num_tokens)
        num_tokens += 1
        if reach:
            guessed_at.append(num_tokens)
            pace.learn(num_tokens, reach, 0)
    pauses = [later - earlier - 1 for earlier, later in zip(guessed_at, guessed_at[1:], strict=False)]
    assert pauses[:7] == [0, 0, 4, 8, 16, 32, 64] and max(pauses) == 64
