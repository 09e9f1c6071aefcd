"""Replicas behind a balancer: counts, aborts, errors, deaths. Fake engines, and two real ones on the CPU."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from parallel.gpu_machine import machine
from parallel.scripted_engine import ScriptedFactory

from workbench import LlamaGPU
from workbench.errors import (
    ConfigError,
    EngineStoppedError,
    GPUUnavailableError,
    InferenceError,
    RequestAborted,
    RequestError,
)
from workbench.parallel import GPUConfig, MultiGPUManager, ReplicaPool


@pytest.fixture
def factory() -> ScriptedFactory:
    return ScriptedFactory()


@pytest.fixture
def pool(factory: ScriptedFactory):
    with ReplicaPool(factory, [0, 1]) as pool:
        yield pool


def _in_flight(pool: ReplicaPool) -> list[int]:
    return [pool.num_in_flight(replica_id) for replica_id in pool.replica_ids]


def test_answers_come_through_and_counts_fall(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    requests = [pool.submit(f"prompt {i}", temperature=0.5) for i in range(3)]
    assert _in_flight(pool) == [2, 1]
    factory.made[1].generations[0].finish("Hello", " there")
    assert requests[1].result(10).text == "Hello there"
    assert (requests[1].text, requests[1].seed, requests[1].replica_id) == ("Hello there", 7, 1)
    assert _in_flight(pool) == [2, 0]
    factory.made[0].generations[1].finish("a", "b", "c", total_s=6.0)
    assert [chunk.text for chunk in requests[2]] == ["a", "b", "c"]
    assert requests[2].is_finished
    assert requests[2].results()[0].prompt == "prompt 2"
    assert _in_flight(pool) == [1, 0]
    assert pool.stats().replicas[0].seconds_per_token == 2.0
    assert pool.num_in_flight("nobody") == 0


def test_counts_fall_though_nobody_reads(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    unread = pool.submit("a")
    factory.made[0].generations[0].finish("done")
    read = pool.submit("b")
    factory.made[1].generations[0].finish("done")
    read.result(10)
    # The pump takes things in the order they came, so the unread one has been counted too.
    assert _in_flight(pool) == [0, 0]
    assert unread.result(10).text == "done"


def test_abort_and_leaving_the_loop(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    stopped, left = pool.submit("a"), pool.submit("b")
    stopped.abort()
    assert stopped.result(10).text == ""
    factory.made[1].generations[0].say("word")
    for chunk in left:
        assert chunk.text == "word"
        break
    assert factory.made[1].generations[0].was_aborted.wait(10)
    assert left.result(10).text == "word"
    assert _in_flight(pool) == [0, 0]


def test_an_error_ends_its_request_only(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    request = pool.submit("a")
    factory.made[0].generations[0].fail(InferenceError("the step failed"))
    for _ in range(2):
        with pytest.raises(InferenceError, match="the step failed"):
            request.result(10)
    assert (_in_flight(pool), pool.alive_ids) == ([0, 0], [0, 1])
    with pytest.raises(RequestError, match="empty"):
        pool.submit("")
    assert _in_flight(pool) == [0, 0]
    with pytest.raises(TimeoutError):
        pool.submit("b").result(0.01)


def test_a_surprise_in_an_engine_reaches_the_caller(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    request = pool.submit("a")
    factory.made[0].generations[0].fail(ZeroDivisionError("surprise"))
    with pytest.raises(ZeroDivisionError):
        request.result(10)
    assert _in_flight(pool) == [0, 0]


async def test_reading_in_an_event_loop(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    request, second = pool.submit("a"), pool.submit(messages=[{"role": "user", "content": "hi"}])
    read = asyncio.create_task(_texts(request))
    await asyncio.sleep(0)
    factory.made[0].generations[0].finish("x", "y")
    assert await read == ["x", "y"]
    waiting = asyncio.create_task(second.aresult())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert factory.made[1].generations[0].was_aborted.is_set()


async def _texts(request) -> list[str]:
    return [chunk.text async for chunk in request]


def test_unstarted_requests_of_a_dead_replica_move(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    first, _, waiting = (pool.submit(name) for name in ("started", "other", "waiting"))
    dying, living = factory.made
    dying.generations[0].say("so far")
    pieces = iter(first)
    assert next(pieces).text == "so far"
    dying.die()
    with pytest.raises(EngineStoppedError, match="engine 0 died"):
        next(pieces)
    assert living.has_two.wait(10)
    living.generations[1].finish("moved")
    assert waiting.result(10).text == "moved"
    assert waiting.replica_id == 1
    assert (pool.alive_ids, _in_flight(pool)) == ([1], [0, 1])
    assert pool.stats().requests_moved_total == 1
    assert [pool.submit("more").replica_id for _ in range(3)] == [1, 1, 1]


def test_started_requests_go_on_where_engines_can_resume(factory: ScriptedFactory) -> None:
    with ReplicaPool(factory, [0, 1, 2]) as pool:
        for engine in factory.made:
            engine.resumes = True
        request = pool.submit("a")
        pieces = iter(request)
        factory.made[0].generations[0].say("one ")
        assert next(pieces).text == "one "
        factory.made[0].die()
        assert factory.made[1].has_one.wait(10)
        # It dies before it adds anything; what the first one said is not lost.
        factory.made[1].die()
        assert factory.made[2].has_one.wait(10)
        factory.made[2].generations[0].finish("two")
        assert [piece.text for piece in pieces] == ["two"]
        assert request.result(10).text == "one two"
        assert (pool.stats().requests_moved_total, pool.stats().requests_resumed_total) == (2, 2)


def test_a_request_that_every_replica_dies_of_is_given_up(factory: ScriptedFactory) -> None:
    with ReplicaPool(factory, range(4)) as pool:
        request = pool.submit("poison")
        for engine in factory.made[:3]:
            assert engine.has_one.wait(10)
            engine.die()
        with pytest.raises(EngineStoppedError, match="3 replicas have died under this request"):
            request.result(10)
        assert pool.alive_ids == [3]


def test_a_replica_found_dead_at_submit_is_passed_over(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    factory.made[0].is_dead = True
    assert pool.submit("a").replica_id == 1
    factory.made[1].is_dead = True
    with pytest.raises(EngineStoppedError, match=r"every replica has stopped: restart one of \[0, 1\]"):
        pool.submit("b")


def test_nobody_hangs_when_the_last_replica_dies(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    requests = [pool.submit(str(i)) for i in range(6)]
    stopped = pool.submit("stopped")
    factory.made[1].is_dead = True
    stopped.is_aborted = True
    for engine in factory.made:
        engine.die()
    for request in requests:
        with pytest.raises(EngineStoppedError):
            request.result(10)
    with pytest.raises(RequestAborted):
        stopped.result(10)
    assert (_in_flight(pool), pool.alive_ids) == ([0, 0], [])


def test_restart_brings_a_replica_back(pool: ReplicaPool, factory: ScriptedFactory) -> None:
    factory.made[0].is_dead = True
    pool.submit("a")
    assert pool.alive_ids == [1]
    pool.restart(0)
    assert (pool.alive_ids, len(factory.made)) == ([0, 1], 3)
    waiting = pool.submit("b")
    assert waiting.replica_id == 0
    # It takes a while to build: what waited there moves meanwhile.
    factory.before_making = lambda: factory.made[1].has_two.wait(10)
    pool.restart(0)
    assert len(factory.made) == 4
    factory.made[1].generations[-1].finish("moved")
    assert waiting.result(10).text == "moved"
    with pytest.raises(ConfigError, match=r"one of \[0, 1\]"):
        pool.restart(7)


def test_unload_ends_everything(factory: ScriptedFactory) -> None:
    pool = ReplicaPool(factory, ["a", "b"])
    request = pool.submit("x")
    assert pool.unload() == {"cpu": 200}
    assert pool.unload() == {}
    with pytest.raises(EngineStoppedError):
        request.result(10)
    for use in (lambda: pool.submit("y"), lambda: pool.restart("a")):
        with pytest.raises(EngineStoppedError, match="the pool is unloaded"):
            use()
    assert _in_flight(pool) == [0, 0]
    assert not [thread for thread in threading.enumerate() if thread.name == "workbench-replicas"]


def test_a_dropped_pool_ends_its_thread(factory: ScriptedFactory) -> None:
    pool = ReplicaPool(factory, [0])
    pump, alive = pool._pump, weakref.ref(pool)
    del pool
    gc.collect()
    assert alive() is None
    assert not pump._thread.is_alive()


def test_a_factory_that_fails_leaves_nothing(factory: ScriptedFactory) -> None:
    failing = ScriptedFactory(fail_at=1)
    with pytest.raises(RuntimeError, match="no room"):
        ReplicaPool(failing, [0, 1])
    assert failing.made[0].num_unloads == 1
    for ids in ([], [0, 0]):
        with pytest.raises(ConfigError, match="replica_ids"):
            ReplicaPool(factory, ids)
    with pytest.raises(ConfigError, match="round_robin"):
        ReplicaPool(factory, [0], balancer="fastest")
    assert factory.made == []


def test_adaptive_reads_the_cache(factory: ScriptedFactory) -> None:
    with ReplicaPool(factory, [0, 1], balancer="adaptive") as pool:
        factory.made[0].kv_blocks_used = 90
        for _ in range(2):
            request = pool.submit("a")
            factory.made[request.replica_id].generations[-1].finish("x")
            request.result(10)
        for engine in factory.made:
            assert engine.was_asked.wait(10)
        with pool._lock:
            pool._await_figures(pool.replica_ids)
        assert [replica.kv_headroom for replica in pool.stats().replicas] == pytest.approx([0.1, 1.0])
        assert [pool.submit("b").replica_id for _ in range(3)] == [1, 1, 1]


def test_built_for_a_manager() -> None:
    config = GPUConfig([1, 0], "data_parallel", memory_fraction=0.5, load_balancing="least_loaded")
    places = []

    def make(place):
        places.append(place)
        return ScriptedFactory()(place.gpu_id)

    with ReplicaPool.for_manager(MultiGPUManager(config, backends=machine(2)), make) as pool:
        assert pool.stats().balancer == "least_loaded"
    with ReplicaPool.for_manager(MultiGPUManager(config, backends=machine(0), degrade=True), make) as pool:
        assert pool.replica_ids == (0,)
    assert [(p.backend.name, p.device_index, p.gpu_id, p.memory_fraction) for p in places] == [
        ("cuda", 1, 1, 0.5),
        ("cuda", 0, 0, 0.5),
        ("cpu", 0, None, 0.5),
    ]
    with pytest.raises(GPUUnavailableError):
        ReplicaPool.for_manager(MultiGPUManager(config, backends=machine(1)), make)
    with pytest.raises(ConfigError, match="replicas are built for 'data'"):
        ReplicaPool.for_manager(MultiGPUManager(GPUConfig([0, 1])), make)


def test_two_real_replicas_answer_as_one() -> None:
    prompts = [f"Prompt number {i}" for i in range(6)]

    def make(_: object) -> LlamaGPU:
        return LlamaGPU("random:tiny", prefer_gpu=False, auto_detect_aws=False, quant_type="fp32", context_length=128)

    with ReplicaPool(make, [0, 1]) as pool:
        requests = [pool.submit(prompt, max_tokens=8) for prompt in prompts]
        answers = [request.result(60) for request in requests]
        engines = list(pool._engines.values())
        alone = [engines[0].submit(prompt, max_tokens=8).result(60) for prompt in prompts]
        assert [a.token_ids for a in answers] == [a.token_ids for a in alone]
        assert {request.replica_id for request in requests} == {0, 1}
        long = pool.submit("stopped early", max_tokens=None, ignore_eos=True)
        for _ in long:
            break
        assert long.result(60).finish_reason in ("abort", "length")
        assert _in_flight(pool) == [0, 0]
        engines[0].unload()
        assert [pool.submit(p, max_tokens=4).result(60).finish_reason for p in prompts[:4]] == ["length"] * 4
        assert pool.alive_ids == [1]
    assert not any(engine.is_loaded for engine in engines)
