"""The fair queue: turns, weights, bounds, and that nobody who gave up keeps a place."""

from __future__ import annotations

import asyncio
import random

import pytest

from workbench.server.errors import ApiError
from workbench.server.fair_queue import FairQueue


def make_queue(capacity=2, max_waiting=100, timeout_s=10.0, **options):
    return FairQueue(lambda: capacity, max_waiting=max_waiting, timeout_s=timeout_s, **options)


class Holder:
    """A task that holds room until it is told to leave."""

    def __init__(self, queue, key, weight=1, log=None, **options):
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(queue, key, weight, log if log is not None else [], options))

    async def _hold(self, queue, key, weight, log, options):
        async with queue.room(key, weight, **options):
            log.append(key)
            await self.leave.wait()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_there_is_room_until_it_is_full():
    queue = make_queue(2)
    holders = [Holder(queue, "a") for _ in range(3)]
    await settle()
    assert (queue.num_running, queue.num_waiting) == (2, 1)
    holders[0].leave.set()
    await settle()
    assert (queue.num_running, queue.num_waiting) == (2, 0)
    queue.check_integrity()
    for holder in holders:
        holder.leave.set()
    await settle()
    assert queue.num_running == 0


async def test_keys_take_turns():
    queue, log = make_queue(1), []
    first = Holder(queue, "first")
    await settle()
    waiting = [Holder(queue, key, log=log) for key in ("a", "a", "a", "b", "c", "b")]
    await settle()
    first.leave.set()
    for holder in waiting:
        holder.leave.set()
    await asyncio.gather(*(holder.task for holder in waiting))
    assert log == ["a", "b", "c", "a", "b", "a"]


async def test_a_heavy_one_waits_for_its_room_and_is_not_overtaken():
    queue, log = make_queue(4), []
    light = [Holder(queue, "a") for _ in range(3)]
    await settle()
    heavy = Holder(queue, "b", 3, log)
    late = Holder(queue, "c", 1, log)
    await settle()
    assert log == []
    light[0].leave.set()
    light[1].leave.set()
    await settle()
    assert log == ["b"] and queue.num_running == 4
    heavy.leave.set()
    await settle()
    assert log == ["b", "c"]
    late.leave.set()
    light[2].leave.set()
    await settle()


async def test_what_can_never_fit_runs_alone():
    queue = make_queue(4)
    giant = Holder(queue, "a", 100)
    await settle()
    assert queue.num_running == 4
    giant.leave.set()
    await settle()
    assert queue.num_running == 0


async def test_too_many_waiting_are_refused_and_told_of():
    refused = []
    queue = make_queue(1, max_waiting=1, refused=refused.append)
    holders = [Holder(queue, "a") for _ in range(2)]
    await settle()
    with pytest.raises(ApiError) as caught:
        async with queue.room("a", 1):
            pass
    assert caught.value.status_code == 503 and caught.value.headers["retry-after"]
    assert refused == ["queue_full"]
    inside = Holder(queue, "a", may_overfill=True)
    await settle()
    assert queue.num_waiting == 2
    for holder in (*holders, inside):
        holder.leave.set()
    await settle()


async def test_nobody_waits_for_ever():
    refused = []
    queue = make_queue(1, timeout_s=0.01, refused=refused.append)
    holder = Holder(queue, "a")
    await settle()
    with pytest.raises(ApiError):
        async with queue.room("b", 1):
            pass
    assert refused == ["queue_timeout"] and queue.num_waiting == 0
    holder.leave.set()


async def test_who_gives_up_leaves_no_trace():
    queue = make_queue(1)
    holder, waiting = Holder(queue, "a"), Holder(queue, "b")
    await settle()
    waiting.task.cancel()
    await settle()
    assert queue.num_waiting == 0
    queue.check_integrity()
    holder.leave.set()
    await settle()
    assert queue.num_running == 0


async def test_who_gives_up_in_the_moment_of_its_turn_gives_the_room_back():
    queue = make_queue(1)
    holder, waiting = Holder(queue, "a"), Holder(queue, "b")
    await settle()
    holder.leave.set()
    await asyncio.sleep(0)
    waiting.task.cancel()
    await settle()
    assert (queue.num_running, queue.num_waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_random_traffic_loses_no_room(seed):
    rng = random.Random(seed)
    queue, holders = make_queue(5), []
    for _ in range(400):
        if holders and rng.random() < 0.5:
            holder = holders.pop(rng.randrange(len(holders)))
            holder.task.cancel() if rng.random() < 0.4 else holder.leave.set()
        else:
            holders.append(Holder(queue, rng.choice("abcd"), rng.randint(1, 7)))
        if rng.random() < 0.7:
            await asyncio.sleep(0)
    for holder in holders:
        holder.leave.set()
    await asyncio.gather(*(holder.task for holder in holders), return_exceptions=True)
    await settle()
    queue.check_integrity()
    assert (queue.num_running, queue.num_waiting) == (0, 0)
