"""Every balancer as a pure function of what it was told."""

from __future__ import annotations

import random
from collections import Counter
from enum import Enum

import pytest

from workbench.errors import ConfigError
from workbench.parallel.balancers import (
    BALANCER_NAMES,
    Adaptive,
    LeastLoaded,
    PrefixAffinity,
    RoundRobin,
    WorkerLoad,
    make_balancer,
)

IDLE = [WorkerLoad(0), WorkerLoad(1), WorkerLoad(2)]


def _loads(*num_in_flight: int) -> list[WorkerLoad]:
    return [WorkerLoad(worker_id, num) for worker_id, num in enumerate(num_in_flight)]


@pytest.mark.parametrize("name", BALANCER_NAMES)
def test_any_balancer_spreads_equal_work_evenly(name: str) -> None:
    balancer = make_balancer(name)
    assert balancer.name == name
    assert Counter(balancer.choose(IDLE, f"prompt {i}") for i in range(30)) == {0: 10, 1: 10, 2: 10}


@pytest.mark.parametrize("name", BALANCER_NAMES)
def test_any_balancer_names_a_worker_that_is_there(name: str) -> None:
    balancer, chance = make_balancer(name), random.Random(5)
    for _ in range(500):
        there = chance.sample(range(5), chance.randint(1, 5))
        loads = [WorkerLoad(i, chance.randint(0, 9), chance.choice([None, 0.1, 2.0]), chance.random()) for i in there]
        assert balancer.choose(loads, "x" * chance.randint(0, 300)) in there
        balancer.forget(chance.randint(0, 4))


def test_names() -> None:
    class Named(Enum):
        ROUND_ROBIN = "round_robin"

    assert isinstance(make_balancer("Round-Robin"), RoundRobin)
    assert isinstance(make_balancer(Named.ROUND_ROBIN), RoundRobin)
    own = LeastLoaded()
    assert make_balancer(own) is own
    with pytest.raises(ConfigError, match="round_robin, least_loaded, adaptive, prefix_affinity"):
        make_balancer("fastest")


def test_round_robin_goes_on_when_a_worker_goes() -> None:
    balancer = RoundRobin()
    assert [balancer.choose(IDLE) for _ in range(4)] == [0, 1, 2, 0]
    assert [balancer.choose(IDLE[1:]) for _ in range(3)] == [1, 2, 1]


def test_least_loaded_goes_by_counts() -> None:
    balancer = LeastLoaded()
    assert [balancer.choose(_loads(3, 1, 2)) for _ in range(3)] == [1, 1, 1]
    assert sorted(balancer.choose(_loads(1, 3, 1)) for _ in range(4)) == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([WorkerLoad(0, 0, 0.2), WorkerLoad(1, 0, 0.1)], 1),
        ([WorkerLoad(0, 2, 0.1), WorkerLoad(1, 0, 0.2)], 1),
        ([WorkerLoad(0, 0, 0.1), WorkerLoad(1, 0, 0.3)], 0),
        ([WorkerLoad(0, 0, 0.1, 0.1), WorkerLoad(1, 0, 0.1, 0.9)], 1),
        ([WorkerLoad(0, 0, 0.1, 0.0), WorkerLoad(1, 3, 0.1, 0.5)], 1),
        ([WorkerLoad(0, 1, None), WorkerLoad(1, 0, 0.1)], 1),
    ],
)
def test_adaptive_goes_by_speed_load_and_headroom(loads: list[WorkerLoad], expected: int) -> None:
    assert Adaptive().choose(loads) == expected


def test_adaptive_tries_a_slow_worker_again_now_and_then() -> None:
    balancer = Adaptive()
    chosen = Counter(balancer.choose([WorkerLoad(0, 0, 0.1), WorkerLoad(1, 0, 9.0)]) for _ in range(330))
    assert chosen == {0: 320, 1: 10}
    full = Adaptive()
    assert {full.choose([WorkerLoad(0, 0, 0.1, 0.9), WorkerLoad(1, 0, 0.1, 0.0)]) for _ in range(100)} == {0}


LONG = "The same long system prompt, word for word, before every question. " * 4
PROMPTS = {
    "text": (LONG + "First?", LONG + "Second?"),
    "token ids": ([*range(40), 1], [*range(40), 2]),
    "messages": (
        [{"role": "system", "content": LONG}, {"role": "user", "content": "First?"}],
        [{"role": "system", "content": LONG}, {"role": "user", "content": "Second?"}],
    ),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_prefix_affinity_follows_the_longest_known_beginning(kind: str) -> None:
    first, second = PROMPTS[kind]
    balancer = PrefixAffinity()
    home = balancer.choose(IDLE, first)
    assert {balancer.choose(IDLE, second) for _ in range(6)} == {home}
    others = {balancer.choose(IDLE, "short and new") for _ in range(3)}
    assert others == {0, 1, 2}
    balancer.forget(home)
    assert balancer.choose([load for load in IDLE if load.worker_id != home], second) != home


def test_prefix_affinity_gives_way_to_load() -> None:
    balancer = PrefixAffinity(max_extra_in_flight=2)
    assert balancer.choose(_loads(0, 9), LONG) == 0
    assert balancer.choose(_loads(1, 0), LONG) == 0
    assert balancer.choose(_loads(2, 0), LONG) == 1


def test_prefix_affinity_keeps_beginnings_longest() -> None:
    balancer = PrefixAffinity(capacity=2)
    assert balancer.choose(_loads(0, 1), LONG) == 0
    # Only the first two of four pieces are remembered, and those are the beginning.
    assert balancer.choose(_loads(1, 0), LONG[:128] + "another end " * 10) == 0
    with pytest.raises(ConfigError, match="capacity=0"):
        PrefixAffinity(capacity=0)
