"""An engine in a child process, seen from its parent: the surface of an `EngineCore`, and what a crash does to it.

The child loads the model itself. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from workbench.engine.isolation.control import (
    Ended,
    Launched,
    LaunchFailed,
    Logged,
    Prepare,
    ReadFigures,
    ReadMemory,
    Reported,
    RunnerWords,
)
from workbench.engine.isolation.engine_child import EngineChild
from workbench.engine.isolation.in_flight import InFlight
from workbench.engine.launch import Launch
from workbench.engine.messages import Chunk, Failed, Stop
from workbench.engine.runner_status import RunnerStatus
from workbench.engine.structure import StructureSpec
from workbench.errors import EngineStoppedError, ModelLoadError, WorkbenchError
from workbench.progress import Progress, ProgressCallback
from workbench.telemetry import DeviceUsage
from workbench.telemetry.device_usage import UsageReader

__all__ = ["ProcessCore"]

_log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 5.0
# How often whoever waits for a load is asked whether to go on.
_ASK_EVERY_S = 0.1


class ProcessCore:
    """Starts the child at once; after `wait_until_launched` and `connect` it is an `EngineCore` to its client.

    Errors call it by `name`.

    One thread starts the child, reads what it says, and tells everybody when it is gone. It must be that one: the
    system ends the child together with the thread that started it.
    """

    def __init__(self, launch: Launch, name: str = "the engine") -> None:
        self._name = name
        self.runner_status = RunnerStatus("loading")
        self.end_reason: str | None = None
        self.ended_process: str | None = None
        self._launch: Launch | None = launch
        self._startup: SimpleQueue[Reported | Launched | LaunchFailed] = SimpleQueue()
        self._emit: Callable[[Any], None] = lambda message: None
        self._in_flight = InFlight()
        self._replies: dict[str, SimpleQueue[Any]] = {}
        self._ids = itertools.count(1)
        self._child: EngineChild | None = None
        self._starting = threading.Lock()
        self._is_stopping = False
        # From the first that hears of it on: the process itself ends a moment later.
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="workbench-engine-process", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not (self._has_ended or self._in_flight.is_closed)

    @property
    def pid(self) -> int | None:
        """The child's process id; None before it runs."""
        return None if self._child is None else self._child.pid

    def wait_until_launched(self, progress: ProgressCallback) -> Launched:
        """Wait for the model to be loaded. Raises what the load raises in the child, ModelLoadError when the child is
        lost, and what `progress` raises, which is asked also while the child says nothing."""
        latest = Progress("start the engine's process", 0, None, "")
        while True:
            try:
                message = self._startup.get(timeout=_ASK_EVERY_S)
            except Empty:
                progress(latest)
                continue
            if isinstance(message, Reported):
                latest = message.progress
                progress(latest)
            elif isinstance(message, Launched):
                return message
            else:
                if not isinstance(message.error, WorkbenchError):
                    message.error.add_note(f"In the engine's process:\n{message.details}")
                raise message.error

    def connect(self, emit: Callable[[Any], None]) -> ProcessCore:
        """Have `emit` called, in this core's thread, with everything the engine says from now on."""
        self._emit = emit
        return self

    def send(self, message: Any) -> None:
        """Hand a message over. EngineStoppedError once the process has ended."""
        if not self._in_flight.open(message):
            raise EngineStoppedError(self.end_reason or "the engine has stopped: load the model again")
        self._write(message)

    def prepare(self, structure: StructureSpec) -> None:
        """See StructureCompiler: it is the child that compiles, and every call asks it."""
        answer = self._ask(Prepare(f"core-{next(self._ids)}", structure))
        if answer.error is not None:
            raise answer.error

    def held_bytes(self, device: str) -> dict[str, int]:
        """What will be given back by its end, by device: memory that it shares with nobody, and its part of a GPU."""
        if self._child is None:
            return {}
        held = {"cpu": self._child.private_bytes()}
        if device != "cpu":
            held[device] = self._read_usage().process
        return held

    def read_usage(self, reader: UsageReader) -> DeviceUsage:
        """See EngineClient.read_usage: the host's memory is read here, a GPU's where it is used."""
        if reader.name != "cpu":
            return self._read_usage()
        usage, private = reader.read_usage(), self.held_bytes("cpu").get("cpu", 0)
        return replace(usage, process=usage.process + private, used=max(usage.used, usage.process + private))

    def read_figures(self) -> Any:
        """What the engine's launch has to tell of it now. Raises EngineStoppedError once the process has ended."""
        return self._ask(ReadFigures(f"core-{next(self._ids)}"), _ANSWER_TIMEOUT_S).figures

    def _read_usage(self) -> DeviceUsage:
        try:
            usage: DeviceUsage = self._ask(ReadMemory(f"core-{next(self._ids)}"), _ANSWER_TIMEOUT_S).usage
            return usage
        except EngineStoppedError:
            return DeviceUsage(0, 0)

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the engine after the step in progress, and its process. Requests in flight end with EngineStoppedError.

        A process that takes longer is killed; when this returns it is gone.
        """
        self._is_stopping = True
        # A caller's garbage can be collected in this very thread, which cannot wait for itself.
        is_own_thread = threading.current_thread() is self._thread
        try:
            if not is_own_thread and self._in_flight.open(Stop()):
                self._write(Stop())
                self._thread.join(timeout_s)
        finally:
            self.kill()
        if not is_own_thread:
            self._thread.join()

    def kill(self) -> None:
        """End the process now; one that is just being started ends as soon as it is there."""
        self._is_stopping = True
        with self._starting:
            if self._child is not None:
                self._child.kill()

    def _ask(self, question: Prepare | ReadFigures | ReadMemory, timeout_s: float | None = None) -> Any:
        reply: SimpleQueue[Any] = SimpleQueue()
        self._replies[question.reply_id] = reply
        try:
            self.send(question)
            answer = reply.get(timeout=timeout_s)
        except Empty:
            raise EngineStoppedError(f"the engine's process did not answer within {timeout_s} s") from None
        finally:
            self._replies.pop(question.reply_id, None)
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def _write(self, message: Any) -> None:
        child = self._child
        if child is None:
            return
        try:
            child.pipe.send([message])
        except BlockingIOError:
            self.end_reason = "the engine's process stopped reading and was ended"
            child.kill()
        except (OSError, ValueError):
            # It is gone: the thread that reads ends what is in flight, this message too.
            pass

    def _run(self) -> None:
        try:
            with self._starting:
                if not self._is_stopping:
                    self._child = EngineChild()
            if self._child is not None:
                self._child.pipe.send([self._launch])
                self._launch = None
                while True:
                    for message in self._child.pipe.receive():
                        self._handle(message)
        except (EOFError, OSError) as error:
            if self._child is None:
                self.end_reason = f"no process could be started: {error}"
        except Exception as error:  # top of the thread: whoever waits must hear of it
            _log.exception("what the engine's process says cannot be read")
            self.end_reason = f"what the engine's process says cannot be read: {error}"
            if self._child is not None:
                self._child.kill()
        finally:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        end = None if self._child is None else self._child.finish()
        if self._is_stopping:
            error = EngineStoppedError("the engine was stopped")
        else:
            if end is not None and self.end_reason is None:
                self.ended_process = f"{self._name}'s process {end.how}"
            self.end_reason = self.end_reason or f"{self._name}'s {end or 'process did not start'}"
            error = EngineStoppedError.of_death(self.end_reason, self.ended_process)
        self.runner_status.end()
        self._startup.put(LaunchFailed(ModelLoadError(f"the load was cut off: {self.end_reason or error}"), ""))
        for message in self._in_flight.close(error):
            self._hand_on(message)

    def _handle(self, message: Any) -> None:
        match message:
            case Reported() | Launched() | LaunchFailed():
                self._startup.put(message)
            case RunnerWords():
                self.runner_status.words = message.words
            case Logged():
                logger = logging.getLogger(message.record.name)
                if logger.isEnabledFor(message.record.levelno):
                    logger.handle(message.record)
            case Ended():
                self._has_ended = True
                self.end_reason, self.ended_process = message.reason, message.ended_process
            case _:
                if isinstance(message, Chunk) and isinstance(message.error, EngineStoppedError):
                    self._has_ended, self.ended_process = True, message.error.ended_process
                self._in_flight.note(message)
                self._hand_on(message)

    def _hand_on(self, message: Any) -> None:
        reply = self._replies.get(getattr(message, "reply_id", ""))
        if reply is not None:
            reply.put(message)
        else:
            self._emit(message)
