"""`ReplicaPool`: data parallelism. Several engines, each with a whole model, behind one balancer.

Knows of an engine only that it has submit(), stats() and unload(), and that EngineStoppedError means it is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from workbench.errors import ConfigError, EngineStoppedError, RequestAborted, RequestError, WorkbenchError
from workbench.parallel.balancers import Balancer, make_balancer
from workbench.parallel.load_book import LoadBook
from workbench.parallel.manager import MultiGPUManager
from workbench.parallel.pump import Pump
from workbench.parallel.replica import EngineGeneration, PoolStats, ReplicaDevice, ReplicaEngine, ReplicaStats
from workbench.parallel.replica_generation import ReplicaGeneration
from workbench.parallel.strategy import ParallelismStrategy

__all__ = ["ReplicaPool"]

_log = logging.getLogger(__name__)

# How many replicas may die under a request before it is given up: it may be what they die of.
_MOST_MOVES = 2
# How long an engine's figures, being read when it is to go, are waited for.
_FIGURES_LIMIT_S = 5.0


@dataclass(frozen=True)
class _Request:
    """What was submitted, kept to be submitted once more if need be."""

    prompt: object
    messages: object
    sampling: dict[str, Any]

    @property
    def subject(self) -> object:
        """What a balancer compares."""
        return self.messages if self.prompt is None else self.prompt


@dataclass(frozen=True)
class _Placement:
    """Where a request is: `inner` is the engine's own generation, which holds what came of it so far."""

    replica_id: int | str
    engine: ReplicaEngine
    inner: EngineGeneration
    num_moves: int = 0
    has_started: bool = False


class ReplicaPool:
    """Serves requests by the replica that the balancer chooses.

    `make_engine(replica_id)` builds one engine; it is called for each id in turn, and again by `restart`. If one fails
    those before it are unloaded. When a replica dies (EngineStoppedError), its requests go to another; there those that
    have begun go on behind what came, and where that is not possible they end with that error. Every method may be
    called from any thread.
    """

    def __init__(
        self,
        make_engine: Callable[[int | str], ReplicaEngine],
        replica_ids: Iterable[int | str],
        *,
        balancer: str | Balancer = "round_robin",
    ) -> None:
        self.replica_ids = tuple(replica_ids)
        if not self.replica_ids or len(set(self.replica_ids)) != len(self.replica_ids):
            raise ConfigError(f"replica_ids={self.replica_ids!r}: must be at least one id, each once")
        self._balancer = make_balancer(balancer)
        self._make_engine = make_engine
        self._lock = threading.Lock()
        self._figures_read = threading.Condition(self._lock)
        self._restart_lock = threading.Lock()
        self._book = LoadBook(self.replica_ids)
        self._headroom: dict[int | str, float | None] = {}
        self._reading_headroom: set[int | str] = set()
        self._num_moved = 0
        self._num_resumed = 0
        self._request_numbers = itertools.count(1)
        self._is_unloaded = False
        self._last_death: EngineStoppedError | None = None
        # Engines that serve; one that died is taken out.
        self._engines: dict[int | str, ReplicaEngine] = {}
        self._make_all()
        self._pump = Pump()
        self._finalizer = weakref.finalize(self, self._pump.stop)

    @classmethod
    def for_manager(
        cls, manager: MultiGPUManager, make_engine: Callable[[ReplicaDevice], ReplicaEngine]
    ) -> ReplicaPool:
        """A replica on every GPU of the manager's config, whose strategy must be "data", balanced as it says.

        Looks at the devices now: raises GPUUnavailableError, or with the manager's `degrade` takes fewer GPUs, or one
        replica on the CPU.
        """
        if manager.config.strategy is not ParallelismStrategy.DATA:
            raise ConfigError(f"strategy={manager.config.strategy.value!r}: replicas are built for 'data'")
        choice = manager.choose_devices()
        fraction = choice.config.memory_fraction
        places: dict[int | str, ReplicaDevice] = {
            gpu_id: ReplicaDevice(choice.backend, device.index, gpu_id, fraction)
            for gpu_id, device in choice.devices.items()
        } or {0: ReplicaDevice(choice.backend, 0, None, fraction)}
        return cls(lambda gpu_id: make_engine(places[gpu_id]), places, balancer=choice.config.load_balancing)

    @property
    def alive_ids(self) -> list[int | str]:
        """Replicas that take requests."""
        with self._lock:
            return self._alive_ids()

    def num_in_flight(self, replica_id: int | str) -> int:
        """Requests on a replica that have not ended; 0 for an unknown id."""
        with self._lock:
            return self._book.num_in_flight(replica_id)

    def submit(self, prompt: object = None, *, messages: object = None, **sampling: Any) -> ReplicaGeneration:
        """Start a request on the chosen replica and return at once; arguments and errors are the engine's.

        Raises EngineStoppedError if no replica is alive.
        """
        request = _Request(prompt, messages, sampling)
        generation = ReplicaGeneration(f"pool-{next(self._request_numbers)}", self)
        placement = self._place(generation, request)
        if not self._pump.spawn(self._serve(generation, placement, request)):
            placement.inner.abort()
            self._end(placement.replica_id)
            self._check_loaded()
        return generation

    def restart(self, replica_id: int | str) -> None:
        """Unload a replica, dead or alive, and build it anew; the others go on meanwhile.

        Its requests move or end as if it had died. If building fails it stays out, and the error is raised.
        """
        if replica_id not in self.replica_ids:
            raise ConfigError(f"replica_id={replica_id!r}: must be one of {list(self.replica_ids)}")
        with self._restart_lock:
            with self._lock:
                self._check_loaded()
                old = self._engines.pop(replica_id, None)
                self._forget(replica_id)
                self._await_figures([replica_id])
            if old is not None:
                old.unload()
            engine = self._make_engine(replica_id)
            with self._lock:
                if not self._is_unloaded:
                    self._engines[replica_id] = engine
                    return
            engine.unload()
            raise EngineStoppedError("the pool was unloaded while a replica was built")

    def all_stopped(self, last_death: EngineStoppedError | None) -> EngineStoppedError:
        """What requests get where no replica lives."""
        words = f"every replica has stopped: restart one of {list(self.replica_ids)}"
        if last_death is None:
            return EngineStoppedError(words)
        return EngineStoppedError(f"{words}; the last: {last_death}", ended_process=last_death.ended_process)

    def stats(self) -> PoolStats:
        """Counts and speeds as the pool knows them, without asking the engines."""
        with self._lock:
            loads = self._book.loads(self.replica_ids, self._headroom)
            replicas = tuple(
                ReplicaStats(
                    replica_id=load.worker_id,
                    is_alive=load.worker_id in self._engines,
                    num_in_flight=load.num_in_flight,
                    requests_total=self._book.num_assigned_total(load.worker_id),
                    seconds_per_token=load.seconds_per_token,
                    kv_headroom=load.kv_headroom,
                )
                for load in loads
            )
            return PoolStats(self._balancer.name, replicas, self._num_moved, self._num_resumed)

    def unload(self) -> dict[str, int]:
        """Unload all replicas. Returns the bytes given back per device; requests in flight end with EngineStoppedError.

        Unloading twice is harmless; the second time nothing is freed.
        """
        with self._lock:
            self._is_unloaded = True
            engines, self._engines = list(self._engines.values()), {}
            self._await_figures(self.replica_ids)
        freed: dict[str, int] = {}
        for engine in engines:
            for device, num_bytes in engine.unload().items():
                freed[device] = freed.get(device, 0) + num_bytes
        self._finalizer()
        return freed

    def __enter__(self) -> ReplicaPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.unload()

    def _make_all(self) -> None:
        try:
            for replica_id in self.replica_ids:
                self._engines[replica_id] = self._make_engine(replica_id)
        except BaseException:
            for engine in self._engines.values():
                engine.unload()
            raise

    def _place(self, generation: ReplicaGeneration, request: _Request, before: _Placement | None = None) -> _Placement:
        """Submit to the chosen replica, or to the next if that one turns out to be dead.

        `before` is where the request was until its replica died.
        """
        while True:
            with self._lock:
                self._check_loaded()
                loads = self._book.loads(self._alive_ids(), self._headroom)
                if not loads:
                    raise self.all_stopped(self._last_death)
                replica_id = self._balancer.choose(loads, request.subject)
                self._book.begin(replica_id)
                engine = self._engines[replica_id]
            try:
                inner = _submit(engine, request, before)
            except EngineStoppedError as error:
                self._end(replica_id)
                self._bury(replica_id, engine, error)
            except BaseException:
                self._end(replica_id)
                raise
            else:
                generation.serve_by(replica_id, inner)
                if before is None:
                    return _Placement(replica_id, engine, inner)
                return _Placement(replica_id, engine, inner, before.num_moves + 1, before.has_started)

    async def _serve(self, generation: ReplicaGeneration, placement: _Placement | None, request: _Request) -> None:
        """Pass a request's chunks on until it ends, on as many replicas as that takes."""
        error: Exception | None = None
        try:
            while placement is not None:
                placement = await self._follow(generation, placement, request)
        except asyncio.CancelledError:
            error = EngineStoppedError("the pool was unloaded")
        except WorkbenchError as failure:
            error = failure
        except Exception as failure:  # top of a task: whoever waits must hear of it
            _log.exception("a request failed outside its engine")
            error = failure
        finally:
            generation.end(error)

    async def _follow(
        self, generation: ReplicaGeneration, placement: _Placement, request: _Request
    ) -> _Placement | None:
        """Pass on what one replica produces. Gives the next placement if that died under the request, else None."""
        has_started, seconds_per_token = placement.has_started, None
        self._watch_headroom(placement)
        try:
            async for chunk in placement.inner:
                has_started = True
                generation.put(chunk)
            seconds_per_token = _seconds_per_token(placement.inner)
            return None
        except EngineStoppedError as error:
            self._bury(placement.replica_id, placement.engine, error)
            death = error.with_traceback(None)
        finally:
            # Before the caller hears of the end, so that the counts it then reads are right.
            self._end(placement.replica_id, seconds_per_token)
            self._watch_headroom(placement)
        if generation.is_aborted:
            raise RequestAborted("stopped when its replica had died")
        if placement.num_moves >= _MOST_MOVES:
            words = f"{_MOST_MOVES + 1} replicas have died under this request; the last: {death}"
            raise EngineStoppedError(words, ended_process=death.ended_process)
        return self._move(generation, replace(placement, has_started=has_started), request, death)

    def _move(
        self, generation: ReplicaGeneration, before: _Placement, request: _Request, death: EngineStoppedError
    ) -> _Placement:
        """Place a dead replica's request anew. Raises that death where it has begun and cannot be resumed."""
        try:
            moved = self._place(generation, request, before)
        except (RequestError, EngineStoppedError) as error:
            if before.has_started:
                words = f"{death}; and the request could not go on elsewhere: {error}"
                raise EngineStoppedError(words, ended_process=death.ended_process) from None
            raise
        with self._lock:
            self._num_moved += 1
            self._num_resumed += before.has_started
        return moved

    def _end(self, replica_id: int | str, seconds_per_token: float | None = None) -> None:
        with self._lock:
            self._book.end(replica_id, seconds_per_token)

    def _bury(self, replica_id: int | str, engine: ReplicaEngine, error: EngineStoppedError) -> None:
        """Take a dead engine out, unless it has been replaced already."""
        with self._lock:
            if self._engines.get(replica_id) is not engine:
                return
            del self._engines[replica_id]
            self._forget(replica_id)
            self._last_death = error
        _log.warning("replica %s has stopped: %s", replica_id, error)

    def _forget(self, replica_id: int | str) -> None:
        self._balancer.forget(replica_id)
        self._book.reset_speed(replica_id)
        self._headroom.pop(replica_id, None)

    def _watch_headroom(self, placement: _Placement) -> None:
        """Have the engine's free cache read beside its work, once at a time, where the balancer goes by it."""
        replica_id, engine = placement.replica_id, placement.engine
        with self._lock:
            if not self._balancer.reads_kv_headroom or replica_id in self._reading_headroom:
                return
            if self._engines.get(replica_id) is not engine:
                return
            self._reading_headroom.add(replica_id)
        if not self._pump.spawn(self._read_headroom(replica_id, engine)):
            self._stop_reading(replica_id, None)

    async def _read_headroom(self, replica_id: int | str, engine: ReplicaEngine) -> None:
        headroom = None
        try:
            stats = await asyncio.to_thread(engine.stats)
            if stats.kv_blocks_total:
                headroom = 1.0 - stats.kv_blocks_used / stats.kv_blocks_total
        except EngineStoppedError as error:
            _log.warning("replica %s gave no figures: %s", replica_id, error)
        finally:
            self._stop_reading(replica_id, headroom)

    def _stop_reading(self, replica_id: int | str, headroom: float | None) -> None:
        with self._lock:
            self._reading_headroom.discard(replica_id)
            if replica_id in self._engines:
                self._headroom[replica_id] = headroom
            self._figures_read.notify_all()

    def _await_figures(self, replica_ids: Iterable[int | str]) -> None:
        """Wait, the lock being held, for readings under way: an engine that is stopped may leave them unanswered."""
        ids = set(replica_ids)
        self._figures_read.wait_for(lambda: not ids & self._reading_headroom, _FIGURES_LIMIT_S)

    def _alive_ids(self) -> list[int | str]:
        return [replica_id for replica_id in self.replica_ids if replica_id in self._engines]

    def _check_loaded(self) -> None:
        if self._is_unloaded:
            raise EngineStoppedError("the pool is unloaded: make a new one")


def _submit(engine: ReplicaEngine, request: _Request, before: _Placement | None) -> EngineGeneration:
    """Start a request, or go on with one. Raises RequestError for one that has begun and cannot be resumed."""
    if before is None or not before.has_started:
        return engine.submit(request.prompt, messages=request.messages, **request.sampling)
    resume = getattr(engine, "resume", None)
    if resume is None:
        raise RequestError("its engine resumes nothing")
    resumed: EngineGeneration = resume(before.inner, request.prompt, messages=request.messages, **request.sampling)
    return resumed


def _seconds_per_token(inner: EngineGeneration) -> float | None:
    timings = inner.timings
    if timings is None or not timings.num_generated_tokens:
        return None
    return float(timings.total_s / timings.num_generated_tokens)
