"""`ClusterCore`: hands an engine client's messages to replicas on a Ray cluster, and follows requests past their death.

Which replica takes a request is Ray Serve's choice: of two at random the one with the shorter queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from workbench.distributed.cluster.answer_progress import AnswerProgress
from workbench.distributed.engine_totals import added_up
from workbench.engine.messages import (
    Abort,
    Embed,
    Embedded,
    EngineStats,
    ReadStats,
    Reply,
    Request,
    StartProfile,
    StopProfile,
)
from workbench.engine.sequence import FinishReason
from workbench.errors import ConfigError, EngineStoppedError, InferenceError, WorkbenchError
from workbench.parallel.pump import Pump
from workbench.telemetry import DeviceUsage
from workbench.telemetry.device_usage import UsageReader

__all__ = ["ClusterCore"]

_log = logging.getLogger(__name__)

# How many replicas may die under a request before it is given up: it may be what they die of.
_MOST_DEATHS = 3


class ClusterCore:
    """What an EngineClient connects to, as `EngineCore` is; `emit` is called in one thread.

    `deployment` is the Serve handle of `EngineReplica`s, `is_death(error)` says whether an error means that a replica
    is gone, `stop` takes the deployment down.
    """

    def __init__(
        self,
        emit: Callable[[Reply], None],
        deployment: Any,
        *,
        is_death: Callable[[BaseException], bool],
        stop: Callable[[], None],
    ) -> None:
        self.end_reason: str | None = None
        self.ended_process: str | None = None
        self._emit = emit
        self._deployment = deployment
        self._is_death = is_death
        self._stop = stop
        self._lock = threading.Lock()
        self._is_stopped = False
        self._running: dict[str, tuple[asyncio.Task[Any], AnswerProgress]] = {}
        self._last_stats: list[EngineStats] = []
        self._pump = Pump("workbench-cluster")

    @property
    def is_alive(self) -> bool:
        """Whether requests are taken. Ray brings dead replicas back, so none of them ends this."""
        return not self._is_stopped

    def send(self, message: object) -> None:
        """Take a message in. Raises EngineStoppedError after `stop`."""
        if isinstance(message, StartProfile | StopProfile):
            raise ConfigError("a profile is of one engine: load the model here, without a cluster, to record one")
        handlers: dict[type, Callable[[Any], Coroutine[Any, Any, None]]]
        handlers = {Request: self._serve, Abort: self._abort, ReadStats: self._tell_stats, Embed: self._embed}
        handle = handlers[type(message)]
        if not self._pump.spawn(handle(message)):
            raise EngineStoppedError("the model is unloaded: load it again")

    def stop(self) -> None:
        """End the requests in flight, then the replicas. Stopping twice is harmless."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        self._pump.stop()
        self._stop()

    def held_bytes(self, device: str) -> dict[str, int]:
        """Memory of other processes on this machine's device: replicas count for themselves."""
        return {}

    def read_usage(self, reader: UsageReader) -> DeviceUsage:
        """A device's memory as this process sees it."""
        return reader.read_usage()

    async def _serve(self, request: Request) -> None:
        progress = AnswerProgress(request)
        task = asyncio.current_task()
        assert task is not None
        self._running[request.request_id] = task, progress
        try:
            await self._follow(progress)
        except asyncio.CancelledError:
            self._end(progress, FinishReason.ERROR, EngineStoppedError("the engine was stopped"))
            raise
        except WorkbenchError as error:
            self._end(progress, FinishReason.ERROR, error)
        except Exception as error:  # top of a task: whoever waits must hear of it
            _log.exception("a request to the cluster failed")
            self._end(progress, FinishReason.ERROR, InferenceError(f"{type(error).__name__}: {error}"))
        finally:
            self._running.pop(request.request_id, None)

    async def _follow(self, progress: AnswerProgress) -> None:
        """Pass chunks on until the request ends, on as many replicas as that takes."""
        num_deaths = 0
        while True:
            death = await self._follow_one(progress)
            if death is None:
                return
            num_deaths += 1
            _log.warning("a replica has died under %s: %s", progress.request.request_id, death)
            if num_deaths == _MOST_DEATHS:
                raise EngineStoppedError(f"{num_deaths} replicas have died under this request; the last: {death}")
            if progress.has_started and not progress.can_resume:
                raise EngineStoppedError(f"{death}; and several answers, or those with plugins, cannot be resumed")

    async def _follow_one(self, progress: AnswerProgress) -> BaseException | None:
        """Pass on what one replica produces; its death, or None at the request's end."""
        stream = self._deployment.options(stream=True, method_name="generate").remote(progress.resumed_request())
        try:
            async for chunk in stream:
                if isinstance(chunk.error, EngineStoppedError):
                    # The replica still answers, its engine does not; Ray's check of its health will find that out.
                    return chunk.error
                self._emit(progress.take(chunk))
        except asyncio.CancelledError:
            stream.cancel()
            if not progress.is_aborted:
                raise
            self._end(progress, FinishReason.ABORT)
            return None
        except Exception as error:
            if not self._is_death(error):
                raise
            return error
        return None if progress.is_over else EngineStoppedError("a replica left in the middle of an answer")

    def _end(self, progress: AnswerProgress, reason: FinishReason, error: WorkbenchError | None = None) -> None:
        for chunk in progress.last_chunks(reason, error):
            self._emit(chunk)

    async def _abort(self, message: Abort) -> None:
        running = self._running.get(message.request_id)
        if running is not None:
            task, progress = running
            progress.is_aborted = True
            task.cancel()

    async def _tell_stats(self, message: ReadStats) -> None:
        try:
            self._last_stats = await self._deployment.broadcast("stats").results_async()
        except Exception as error:  # one dies while it is asked: what was true a moment ago has to do
            _log.warning("the replicas gave no figures: %s", error)
        self._emit(replace(added_up(self._last_stats), reply_id=message.reply_id))

    async def _embed(self, message: Embed) -> None:
        try:
            values = await self._deployment.embed.remote(message.prompt_token_ids)
            self._emit(Embedded(message.reply_id, values))
        except Exception as error:
            cause = getattr(error, "cause", error)
            known = cause if isinstance(cause, WorkbenchError) else InferenceError(str(error))
            self._emit(Embedded(message.reply_id, error=known))
