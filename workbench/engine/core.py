"""The engine's loop, spoken to by messages only, in a thread of its own or wherever it is run."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import torch

from workbench.engine.engine import Engine
from workbench.engine.messages import (
    Abort,
    Chunk,
    Embed,
    Embedded,
    Fail,
    Message,
    Profiled,
    ReadStats,
    Reply,
    Request,
    StartProfile,
    Stop,
    StopProfile,
)
from workbench.engine.sequence import FinishReason
from workbench.engine.step_profiler import StepProfiler
from workbench.errors import EngineStoppedError, InferenceError, OutOfMemoryError, WorkbenchError
from workbench.telemetry import DeviceUsage
from workbench.telemetry.device_usage import UsageReader

__all__ = ["EngineCore"]

_log = logging.getLogger(__name__)


class EngineCore:
    """Runs an engine until it is told to stop. `emit` is called in the core's thread and must return quickly.

    `on_end` is called in that thread when the loop has ended, before the callers in flight hear of it.
    `end_reason` says why the loop died, None unless it did; `ended_process` which process it died of, if of one.
    """

    def __init__(
        self,
        engine: Engine,
        emit: Callable[[Reply], None],
        *,
        num_threads: int | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._engine: Engine | None = engine
        self._emit = emit
        self._on_end = on_end
        self._num_threads = num_threads
        self._profiler: StepProfiler | None = None
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._closing = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self.run, name="workbench-engine", daemon=True)
        self.end_reason: str | None = None
        self.ended_process: str | None = None

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread.start()

    def send(self, message: Message) -> None:
        """Hand a message over; the loop takes it before its next step. EngineStoppedError once the loop has ended."""
        with self._closing:
            if self._is_closed:
                raise EngineStoppedError("the engine has stopped: load the model again")
            self._inbox.put(message)

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the loop after the step in progress. Requests in flight end with EngineStoppedError."""
        with contextlib.suppress(EngineStoppedError):
            self.send(Stop())
        # A caller's garbage can be collected in this very thread, which cannot wait for itself.
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def held_bytes(self, device: str) -> dict[str, int]:
        """Memory of other processes, by device: none."""
        return {}

    def read_usage(self, reader: UsageReader) -> DeviceUsage:
        """A device's memory as this process sees it."""
        return reader.read_usage()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def run(self) -> None:
        """The loop, in the thread that calls; until `Stop` comes or it dies, which `end_reason` then tells."""
        cause: Exception | None = None
        try:
            if self._num_threads:
                torch.set_num_threads(self._num_threads)
            with torch.inference_mode():
                while self._take_messages():
                    self._step()
        except EngineStoppedError as error:
            _log.error("the engine's loop ends: %s", error)
            cause = error
        except Exception as error:  # top of the thread: whoever waits must hear of it
            _log.exception("the engine's loop died")
            cause = error
        finally:
            if self._on_end is not None:
                self._on_end()
            self._say_goodbye(cause)

    @property
    def _running(self) -> Engine:
        # It goes with the goodbye, the last that the loop does.
        assert self._engine is not None
        return self._engine

    def _step(self) -> None:
        try:
            chunks = self._running.step()
        except EngineStoppedError:  # what it runs on is gone, and no later step can be computed either
            raise
        except Exception as error:  # the step's requests are lost, the engine is not
            _log.exception("a step failed")
            chunks = self._running.fail_all(InferenceError(f"the step failed: {error}"))
        for chunk in chunks:
            self._emit(chunk)

    def _take_messages(self) -> bool:
        """Handle what has arrived, waiting if there is nothing to compute; False ends the loop."""
        while True:
            try:
                most_idle_s = self._running.most_idle_s
                message = self._inbox.get(block=most_idle_s != 0, timeout=most_idle_s)
            except Empty:
                return True
            if isinstance(message, Stop):
                return False
            if isinstance(message, Fail):
                raise EngineStoppedError(message.reason, ended_process=message.ended_process)
            self._handle(message)

    def _handle(self, message: Message) -> None:
        if isinstance(message, Request):
            try:
                self._running.add(message)
            except WorkbenchError as error:
                self._refuse(message, error)
            except Exception as error:  # one request's failure must not reach the others
                _log.exception("request %s failed", message.request_id)
                self._refuse(message, InferenceError(f"the request failed: {error}"))
        elif isinstance(message, Abort):
            for chunk in self._running.abort(message.request_id):
                self._emit(chunk)
        elif isinstance(message, Embed):
            self._emit(self._embedded(message))
        elif isinstance(message, ReadStats):
            self._emit(self._running.stats(message.reply_id))
        elif isinstance(message, StartProfile | StopProfile):
            self._emit(self._profiled(message))

    def _profiled(self, message: StartProfile | StopProfile) -> Profiled:
        running, self._profiler = self._profiler, None
        profile = None if running is None else running.stop()
        if isinstance(message, StopProfile):
            return Profiled(message.reply_id, profile)
        self._profiler = StepProfiler(self._engine, with_operations=message.with_operations)
        return Profiled(message.reply_id)

    def _embedded(self, message: Embed) -> Embedded:
        try:
            return Embedded(message.reply_id, self._running.embed(message.prompt_token_ids))
        except WorkbenchError as error:
            return Embedded(message.reply_id, error=error)
        except torch.OutOfMemoryError as error:
            return Embedded(message.reply_id, error=OutOfMemoryError(f"no memory for an embedding: {error}"))
        except Exception as error:  # one request's failure must not reach the others
            _log.exception("an embedding failed")
            return Embedded(message.reply_id, error=InferenceError(f"the embedding failed: {error}"))

    def _refuse(self, request: Request, error: WorkbenchError) -> None:
        for index in range(request.params.n):
            self._emit(Chunk(request.request_id, index, finish_reason=FinishReason.ERROR, error=error))

    def _say_goodbye(self, cause: Exception | None) -> None:
        """End what is in flight, and drop the engine so that its memory can go."""
        if cause is not None:
            self.ended_process = getattr(cause, "ended_process", None)
            self.end_reason = f"the engine's loop died: {cause}"
        error = EngineStoppedError("the engine was stopped")
        if self.end_reason is not None:
            error = EngineStoppedError.of_death(self.end_reason, self.ended_process)
        with self._closing:
            self._is_closed = True
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, Request):
                self._refuse(message, error)
            elif isinstance(message, Embed):
                self._emit(Embedded(message.reply_id, error=error))
            elif isinstance(message, ReadStats):
                self._emit(self._running.stats(message.reply_id))
            elif isinstance(message, StartProfile | StopProfile):
                self._emit(Profiled(message.reply_id))
        for chunk in self._running.fail_all(error):
            self._emit(chunk)
        self._running.close()
        self._engine = None
