"""The engine's process: builds an engine, runs its loop in the main thread, and leaves with its parent.

python -m workbench.engine.isolation.child SOCKET PARENT_PID
"""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from workbench.child_lifetime import die_with_parent
from workbench.engine.isolation.control import (
    Ended,
    FiguresRead,
    Launched,
    LaunchFailed,
    Logged,
    MemoryRead,
    Prepare,
    Prepared,
    ReadFigures,
    ReadMemory,
    Reported,
    RunnerWords,
)
from workbench.engine.isolation.message_pipe import MessagePipe
from workbench.engine.messages import Chunk, Request
from workbench.engine.sequence import FinishReason
from workbench.errors import InferenceError, ModelLoadError, RequestError, WorkbenchError

if TYPE_CHECKING:
    from workbench.engine.core import EngineCore

__all__ = ["main"]

_log = logging.getLogger(__name__)


def main(socket_number: int, parent_pid: int) -> None:
    """Serve one engine over a socket until it is stopped. Does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with_parent(parent_pid)
    faulthandler.enable()
    pipe = MessagePipe(socket.socket(fileno=socket_number))
    (launch,) = pipe.receive()
    child = _Child(pipe)
    child.serve(launch)
    child.leave()


class _Child:
    """Two threads beside the engine's own: one reads, one writes, so that the engine waits for neither."""

    def __init__(self, pipe: MessagePipe) -> None:
        self._pipe = pipe
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="workbench-writer", daemon=True)
        self._writer.start()
        self._built: Any = None
        self._core: EngineCore | None = None
        logging.getLogger().addHandler(_Forwarder(self.say))
        logging.captureWarnings(True)
        threading.Thread(target=self._read, name="workbench-reader", daemon=True).start()

    def say(self, message: Any) -> None:
        self._outbox.put(message)

    def serve(self, launch: Any) -> None:
        """Build the engine and run it to its end, or say why there is none."""
        try:
            self._built = launch.build(lambda progress: self.say(Reported(progress)))
        except BaseException as error:  # whatever it is, the parent waits for it
            self.say(LaunchFailed(_portable(error), traceback.format_exc()))
            return
        # Not before: building it may need no torch at all in a test.
        from workbench.engine.core import EngineCore

        built, status = self._built, self._built.runner_status
        self._core = EngineCore(built.engine, self.say, num_threads=built.num_threads, on_end=built.on_end)
        status.on_change = lambda words: self.say(RunnerWords(words))
        self.say(RunnerWords(str(status)))
        self.say(Launched(built.facts))
        if built.on_start is not None:
            built.on_start(self._core)
        self._core.run()
        if self._core.end_reason is not None:
            self.say(Ended(self._core.end_reason, self._core.ended_process))

    def leave(self) -> None:
        """Let everything be said, and end without taking the interpreter apart, which takes long with a GPU."""
        self._outbox.put(None)
        self._writer.join()
        os._exit(0)

    def _write(self) -> None:
        """Send what there is, all of it at once: a step's chunks cost one message."""
        is_over = False
        while not is_over:
            messages = [self._outbox.get()]
            try:
                while True:
                    messages.append(self._outbox.get_nowait())
            except Empty:
                is_over = None in messages
            try:
                self._pipe.send([message for message in messages if message is not None])
            except OSError:
                os._exit(1)

    def _read(self) -> None:
        while True:
            try:
                messages = self._pipe.receive()
            except (EOFError, OSError):
                os._exit(1)
            for message in messages:
                self._handle(message)

    def _handle(self, message: Any) -> None:
        if isinstance(message, Prepare):
            threading.Thread(target=self._prepare, args=(message,), name="workbench-prepare", daemon=True).start()
        elif isinstance(message, ReadMemory):
            self.say(MemoryRead(message.reply_id, self._built.usage.read_usage()))
        elif isinstance(message, ReadFigures):
            self.say(FiguresRead(message.reply_id, self._built.figures()))
        elif self._core is not None:
            try:
                if isinstance(message, Request) and message.params.plugins:
                    self._check_plugins(message)
                self._core.send(message)
            except RequestError as error:
                for index in range(message.params.n):
                    self.say(Chunk(message.request_id, index, finish_reason=FinishReason.ERROR, error=error))
            except WorkbenchError:
                # The loop has just died: the parent ends what it has sent when this process does.
                _log.debug("a message came too late")
        else:  # a stop, while the model is being loaded
            os._exit(1)

    def _check_plugins(self, request: Request) -> None:
        """Plugins that a cell made are there and not here: leaving them out of an answer would be wrong silently."""
        from workbench.engine.request_plugins import RequestPlugins

        try:
            RequestPlugins(self._built.plugins).check(request.params)
        except RequestError as error:
            raise RequestError(
                f"{error} (in the engine's process, which has the plugins that were enabled when it started; "
                "EngineConfig(isolation='thread') runs those of this notebook too)"
            ) from None

    def _prepare(self, message: Prepare) -> None:
        error = None
        try:
            self._built.structures.prepare(message.structure)
        except WorkbenchError as refusal:
            error = refusal
        except Exception as failure:  # top of the thread: whoever asked must hear of it
            _log.exception("a structure could not be compiled")
            error = InferenceError(f"the structure could not be compiled: {failure}")
        self.say(Prepared(message.reply_id, error))


class _Forwarder(logging.handlers.QueueHandler):
    """Sends log records to the parent, whose log is the one that people read."""

    def __init__(self, say: Callable[[Any], None]) -> None:
        super().__init__(SimpleQueue())
        self._say = say

    def enqueue(self, record: logging.LogRecord) -> None:
        self._say(Logged(record))


def _portable(error: BaseException) -> Exception:
    """The error where the parent surely knows its class, else its words."""
    if isinstance(error, WorkbenchError) or type(error).__module__ == "builtins" and isinstance(error, Exception):
        return error.with_traceback(None)
    return ModelLoadError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
