"""The scheduler's choices: order, budgets, chunks, sharing, and who gives way when blocks run out."""

from __future__ import annotations

import itertools
import random

import pytest
from engine.fake_runner import make_limits

from workbench.engine.sampling_params import SamplingParams
from workbench.engine.scheduler import Scheduler
from workbench.engine.sequence import Sequence, SequenceStatus

_numbers = itertools.count()


def make_sequence(prompt, max_context=40, leader=None, **sampling):
    token_ids = list(prompt) if not isinstance(prompt, int) else [next(_numbers) for _ in range(prompt)]
    params = SamplingParams(**{"max_tokens": None, **sampling})
    return Sequence("r", 0, token_ids, len(token_ids), params, 0, frozenset(), max_context, leader)


def add(scheduler, *prompts, **options):
    sequences = [make_sequence(prompt, **options) for prompt in prompts]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def step(scheduler):
    """Plan and commit a step; every sampling sequence gets a token. What was planned: {sequence: tokens}."""
    plan = scheduler.schedule()
    scheduler.commit(plan)
    for item in plan.items:
        if item.samples:
            item.sequence.token_ids.append(1000 + next(_numbers))
    scheduler.check_integrity()
    return {item.sequence: item.num_new_tokens for item in plan.items}


def test_a_long_prompt_is_computed_in_chunks_of_the_budget():
    scheduler = Scheduler(make_limits(max_num_batched_tokens=16))
    (sequence,) = add(scheduler, 39)
    plans = [scheduler.schedule()]
    assert (plans[0].items[0].num_new_tokens, plans[0].items[0].samples) == (16, False)
    scheduler.commit(plans[0])
    assert step(scheduler) == {sequence: 16}
    last = scheduler.schedule()
    assert (last.items[0].start, last.items[0].num_new_tokens, last.items[0].samples) == (32, 7, True)


def test_decodes_come_first_and_the_chunk_beside_them_is_bounded():
    scheduler = Scheduler(make_limits(max_num_batched_tokens=16, max_prompt_tokens_beside_decodes=5, num_blocks=40))
    short = add(scheduler, 2, 3)
    step(scheduler)
    (long,) = add(scheduler, 30)
    plan = scheduler.schedule()
    assert [(item.sequence, item.num_new_tokens) for item in plan.items] == [(short[0], 1), (short[1], 1), (long, 5)]


def test_where_chunks_grow_a_step_has_whole_rows_and_a_sixteenth_of_what_waits():
    limits = make_limits(
        max_num_batched_tokens=8192,
        max_prompt_tokens_beside_decodes=1024,
        chunks_grow=True,
        max_num_seqs=256,
        max_context=8192,
        num_blocks=20_000,
    )
    scheduler = Scheduler(limits)
    streams = add(scheduler, *[2] * 32, max_context=8192)
    step(scheduler)
    (long,) = add(scheduler, 4096, max_context=8192)
    assert step(scheduler)[long] == 1024 - len(streams)
    add(scheduler, *[500] * 200, max_context=8192)
    # 103,104 tokens wait: a sixteenth of them is 6,444, of which six times 1,024 are taken.
    assert sum(step(scheduler).values()) == 6 * 1024
    sizes = [sum(step(scheduler).values()) for _ in range(60)]
    assert sizes[:30] == sorted(sizes[:30], reverse=True)
    assert 1024 in sizes


def test_chunks_beside_decodes_shrink_with_the_context_they_look_at():
    limits = make_limits(
        max_num_batched_tokens=512,
        max_prompt_tokens_beside_decodes=256,
        doubling_context_tokens=512,
        max_context=4096,
        num_blocks=2000,
        block_size=4,
    )
    scheduler = Scheduler(limits)
    add(scheduler, 2, max_context=4096)
    step(scheduler)
    (long,) = add(scheduler, 4000, max_context=4096)
    chunks = []
    while long.num_computed_tokens < 4000:
        chunks.append(step(scheduler)[long])
    assert chunks[:3] == [256, 170, 139]
    assert set(chunks[-10:-1]) == {32}
    alone = Scheduler(limits)
    (long,) = add(alone, 4000, max_context=4096)
    assert [step(alone)[long] for _ in range(3)] == [512, 512, 512]


def test_no_step_exceeds_its_budget_or_its_number_of_sequences():
    limits = make_limits(max_num_batched_tokens=7, max_num_seqs=3, num_blocks=100)
    scheduler = Scheduler(limits)
    waiting = add(scheduler, *[5] * 10, max_tokens=3)
    while scheduler.has_work:
        planned = step(scheduler)
        assert 0 < sum(planned.values()) <= 7 and len(scheduler.running) <= 3
        for sequence in waiting:
            if sequence.is_full:
                scheduler.finish(sequence)


def test_a_known_beginning_is_not_computed_again():
    scheduler = Scheduler(make_limits())
    prompt = list(range(14))
    (first,) = add(scheduler, prompt)
    step(scheduler)
    (second,) = add(scheduler, prompt)
    assert step(scheduler)[second] == 2
    assert second.num_cached_tokens == 12
    assert second.block_ids[:3] == first.block_ids[:3]
    assert second.block_ids[3] != first.block_ids[3]
    assert scheduler.num_prefix_hit_tokens == 12


def test_a_known_beginning_is_only_known_under_its_salt():
    scheduler = Scheduler(make_limits())
    prompt = list(range(9))
    for salt in ("first", "second", ""):
        (sequence,) = add(scheduler, prompt, cache_salt=salt)
        assert step(scheduler) == {sequence: 9}
        scheduler.finish(sequence)
    add(scheduler, prompt, cache_salt="second")
    assert sum(step(scheduler).values()) < 9


def test_of_a_prompt_that_is_known_whole_the_last_block_is_computed_again():
    scheduler = Scheduler(make_limits())
    prompt = list(range(12))
    (first,) = add(scheduler, prompt)
    step(scheduler)
    scheduler.finish(first)
    (second,) = add(scheduler, prompt)
    assert step(scheduler) == {second: 4}


def test_an_answer_is_part_of_the_next_prompts_beginning():
    scheduler = Scheduler(make_limits())
    (first,) = add(scheduler, 6)
    for _ in range(6):
        step(scheduler)
    scheduler.finish(first)
    (second,) = add(scheduler, [*first.token_ids, 5])
    step(scheduler)
    # Eleven tokens were computed (the twelfth only chosen): two whole blocks.
    assert second.num_cached_tokens == 8


def test_a_block_is_not_found_before_it_is_computed():
    scheduler = Scheduler(make_limits(max_num_batched_tokens=64))
    prompt = list(range(12))
    first, second = add(scheduler, prompt, prompt)
    assert step(scheduler) == {first: 12, second: 12}


def test_scored_prompts_are_computed_whole_and_in_bounded_chunks():
    limits = make_limits(max_context=400, num_blocks=200, max_num_batched_tokens=300)
    scheduler = Scheduler(limits)
    prompt = list(range(290))
    (first,) = add(scheduler, prompt, max_context=400)
    step(scheduler)
    (scored,) = add(scheduler, prompt, max_context=400, prompt_logprobs=0)
    assert step(scheduler)[scored] <= 128
    assert scored.num_cached_tokens == 0


def test_followers_wait_for_their_leaders_prompt_and_then_share_it():
    scheduler = Scheduler(make_limits())
    leader = make_sequence(range(21))
    follower = make_sequence(range(21), leader=leader)
    for sequence in (leader, follower):
        scheduler.add(sequence)
    assert step(scheduler) == {leader: 16}
    assert step(scheduler) == {leader: 5}
    assert step(scheduler) == {leader: 1, follower: 1}
    assert follower.num_cached_tokens == 20


def test_a_follower_whose_leader_is_gone_starts():
    scheduler = Scheduler(make_limits())
    leader = make_sequence(range(21))
    follower = make_sequence(range(21), leader=leader)
    for sequence in (leader, follower):
        scheduler.add(sequence)
    step(scheduler)
    scheduler.finish(leader)
    assert follower in step(scheduler)


def test_the_youngest_gives_way_and_waits_first_in_line_with_its_tokens():
    scheduler = Scheduler(make_limits(num_blocks=10, max_num_batched_tokens=64))
    old, young = add(scheduler, 15, 15)
    late = add(scheduler, 3)[0]
    while not scheduler.num_preemptions:
        step(scheduler)
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [young, late]
    assert young.status is SequenceStatus.WAITING and young.block_ids == []
    assert young.num_computed_tokens == 0 and young.num_generated_tokens > 0


def test_a_preempted_answer_goes_on_where_it_was():
    scheduler = Scheduler(make_limits(num_blocks=10, max_num_batched_tokens=64))
    old, young = add(scheduler, 15, 15)
    while not scheduler.num_preemptions:
        step(scheduler)
    token_ids = list(young.token_ids)
    scheduler.finish(old)
    num_found = len(token_ids) - step(scheduler)[young]
    # What is left of its own blocks is found again, and the rest computed anew up to the last known token.
    assert num_found % 4 == 0 and young.num_computed_tokens == len(token_ids)
    assert young.token_ids[:-1] == token_ids
    # What it found again of itself is no saving, and is not counted as one.
    assert young.num_cached_tokens == scheduler.num_prefix_hit_tokens == 0


def test_nobody_overtakes_one_that_does_not_fit_yet():
    scheduler = Scheduler(make_limits(num_blocks=10, max_num_batched_tokens=64))
    (running,) = add(scheduler, 20)
    step(scheduler)
    big, small = add(scheduler, 30, 1)
    assert step(scheduler) == {running: 1}
    assert list(scheduler.waiting) == [big, small]
    scheduler.finish(running)
    assert list(step(scheduler))[0] is big


def test_a_newcomer_leaves_a_block_for_each_that_runs():
    scheduler = Scheduler(make_limits(num_blocks=10, max_num_batched_tokens=64))
    (running,) = add(scheduler, 16)
    step(scheduler)
    (newcomer,) = add(scheduler, 24)
    # Six blocks are free, and it needs six.
    assert step(scheduler) == {running: 1}
    assert newcomer.status is SequenceStatus.WAITING


def test_one_that_is_held_back_waits_until_another_has_ended():
    scheduler = Scheduler(make_limits(num_blocks=100))
    first, second = add(scheduler, 3, 3)
    step(scheduler)
    scheduler.hold_back_youngest()
    for _ in range(3):
        assert step(scheduler) == {first: 1}
    scheduler.finish(first)
    assert second in step(scheduler)


def test_finishing_twice_is_harmless():
    scheduler = Scheduler(make_limits())
    running, waiting = add(scheduler, 16, 3)
    step(scheduler)
    for sequence in (running, waiting, running, waiting):
        scheduler.finish(sequence)
    scheduler.check_integrity()
    assert not scheduler.has_work and scheduler.pool.num_used_blocks == 0


@pytest.mark.parametrize("seed", range(15))
def test_random_traffic_starves_nobody_and_loses_no_block(seed):
    rng = random.Random(seed)
    limits = make_limits(
        num_blocks=rng.randrange(10, 16),
        max_num_batched_tokens=rng.randrange(1, 20),
        max_prompt_tokens_beside_decodes=1,
        max_num_seqs=rng.randrange(1, 6),
        enable_prefix_caching=rng.random() < 0.5,
    )
    scheduler, alive, started, arrived = Scheduler(limits), [], [], []
    while len(arrived) < 40 or scheduler.has_work:
        if len(arrived) < 40 and rng.random() < 0.3:
            prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 30))]
            (sequence,) = add(scheduler, prompt, max_tokens=rng.randrange(1, 15))
            arrived.append(sequence)
            alive.append(sequence)
        planned = step(scheduler)
        started += [sequence for sequence in planned if sequence not in started]
        # Whoever is oldest goes on in every step, so that everybody's turn comes.
        assert not alive or alive[0] in planned
        for sequence in [s for s in alive if s.is_full or rng.random() < 0.01]:
            scheduler.finish(sequence)
            alive.remove(sequence)
            # One that is stopped before its turn never starts.
            started += [] if sequence in started else [sequence]
            scheduler.check_integrity()
    assert [s for s in arrived if s.num_computed_tokens] == [s for s in started if s.num_computed_tokens]
    assert scheduler.pool.num_used_blocks == 0
