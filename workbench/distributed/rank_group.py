"""The processes that hold one model together: started, watched, and ended as one."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from workbench.child_lifetime import exit_in_words
from workbench.distributed.nursery import RankNursery
from workbench.distributed.rank_messages import Failed, LostPeer
from workbench.distributed.rank_process import RankProcess, SpawnedRank
from workbench.errors import BackendUnavailableError, EngineStoppedError
from workbench.models.child_process import log_tail

__all__ = ["RankFailure", "RankGroup"]

_log = logging.getLogger(__name__)

_POLL_S = 0.2
_STOP_LIMIT_S = 3.0


@dataclass(frozen=True)
class RankFailure:
    """Why a group died; `ended_process` as in EngineStoppedError."""

    reason: str
    ended_process: str | None = None


@dataclass
class _Rank:
    """One process with its ends of the pipes."""

    number: int
    name: str
    process: RankProcess
    connection: Connection
    log: Path


@dataclass
class RankGroup:
    """Processes, by the names that errors call them. One that dies takes the others with it: none of them can compute
    a step alone.

    `shared_fd` is memory that all of them map. Use `start`, and `stop` in the end; a context manager.
    """

    names: Sequence[str]
    shared_fd: int
    folder: tempfile.TemporaryDirectory[str]
    nursery: RankNursery | None = None
    ranks: list[_Rank] = field(default_factory=list)
    _failure: RankFailure | None = None
    _is_stopping: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _on_failure: Callable[[RankFailure], None] | None = None
    _wake: tuple[int, int] = field(default_factory=os.pipe)
    _watcher: threading.Thread | None = None

    @classmethod
    def start(cls, names: Sequence[str], nursery: RankNursery | None = None) -> RankGroup:
        """Start a process per name; they wait for their first message. A `nursery` forks them, else each imports by
        itself.

        Raises BackendUnavailableError outside of Linux.
        """
        if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
            raise BackendUnavailableError("several processes for one model need Linux")
        folder = tempfile.TemporaryDirectory(prefix="workbench-ranks-")
        group = cls(names, os.memfd_create("workbench-logits"), folder, nursery)
        if nursery is not None:
            nursery.hold()
        try:
            for number in range(group.size):
                group.ranks.append(group._start_rank(number))
        except BaseException:
            group.stop()
            raise
        group._watcher = threading.Thread(target=group._watch, name="workbench-rank-watch", daemon=True)
        group._watcher.start()
        return group

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def meeting_file(self) -> str:
        """Where the ranks find each other."""
        return str(Path(self.folder.name) / "meeting")

    @property
    def process_ids(self) -> list[int]:
        return [rank.process.pid for rank in self.ranks]

    @property
    def is_alive(self) -> bool:
        return self._failure is None and not self._is_stopping

    def on_failure(self, tell: Callable[[RankFailure], None]) -> None:
        """Have the reason told when the group dies, in a thread of the group's; at once if it is dead already."""
        with self._lock:
            self._on_failure = tell
            failure = self._failure
        if failure is not None:
            tell(failure)

    def send(self, number: int, message: object) -> None:
        """Send to one rank. Raises EngineStoppedError with the reason if the group is dead."""
        try:
            self.ranks[number].connection.send(message)
        except (OSError, ValueError):
            raise self._stopped() from None

    def send_all(self, message: object) -> None:
        """Send to every rank."""
        for number in range(self.size):
            self.send(number, message)

    def receive(self, timeout_s: float | None = None) -> list[tuple[int, Any]]:
        """Wait for something to arrive; (rank, message) pairs, none after `timeout_s`. Raises EngineStoppedError if the
        group is dead, and what a rank gave up with."""
        numbers: dict[Any, int] = {rank.connection: rank.number for rank in self.ranks}
        try:
            ready: list[Any] = wait(list(numbers), timeout_s)
            arrived = [(numbers[connection], connection.recv()) for connection in ready]
        except (OSError, ValueError, EOFError):
            raise self._stopped() from None
        for number, message in arrived:
            if isinstance(message, Failed):
                self._fail(RankFailure(f"{self.names[number]} gave up: {message.error}"))
                raise message.error
            if isinstance(message, LostPeer):
                raise self._stopped(f"{self.names[number]} cannot reach another: {message.words}")
        return arrived

    def receive_from_all(self, while_waiting: Callable[[], object] = lambda: None) -> list[Any]:
        """One message of every rank, in the ranks' order. `while_waiting` is called now and then, and what it raises
        gets through."""
        replies: dict[int, Any] = {}
        while len(replies) < self.size:
            replies.update(self.receive(_POLL_S))
            while_waiting()
        return [replies[number] for number in range(self.size)]

    def receive_one(self, while_waiting: Callable[[], object] = lambda: None) -> Any:
        """The message of the only rank that was asked; `while_waiting` as in `receive_from_all`."""
        while True:
            arrived = self.receive(_POLL_S)
            while_waiting()
            if arrived:
                return arrived[0][1]

    def stop(self) -> None:
        """End the processes and wait until they are gone. Stopping twice is harmless."""
        with self._lock:
            if self._is_stopping:
                return
            self._is_stopping = True
        for rank in self.ranks:
            if not rank.process.has_ended():
                rank.process.terminate()
        os.write(self._wake[1], b"x")
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(_STOP_LIMIT_S)
        deadline_s = time.monotonic() + _STOP_LIMIT_S
        for rank in self.ranks:
            wait([rank.process.end_fd], max(0.0, deadline_s - time.monotonic()))
            if not rank.process.has_ended():
                rank.process.kill()
            rank.process.wait()
            rank.process.close()
            rank.connection.close()
        if self.nursery is not None:
            self.nursery.release()
        os.close(self.shared_fd)
        for fd in self._wake:
            os.close(fd)
        self.folder.cleanup()

    def __enter__(self) -> RankGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_rank(self, number: int) -> _Rank:
        ours, theirs = socket.socketpair()
        log = Path(self.folder.name) / f"rank-{number}.log"
        start = SpawnedRank if self.nursery is None else self.nursery.fork
        with theirs:
            process = start(theirs.fileno(), self.shared_fd, log)
        return _Rank(number, self.names[number], process, Connection(ours.detach()), log)

    def _watch(self) -> None:
        """Wait for the first process to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake[0], selectors.EVENT_READ)
            for rank in self.ranks:
                selector.register(rank.process.end_fd, selectors.EVENT_READ, rank)
            ended = [key.data for key, _ in selector.select() if key.data is not None]
        if ended and not self._is_stopping:
            self._fail(_death_of(ended[0]))

    def _fail(self, failure: RankFailure) -> None:
        with self._lock:
            if self._failure is not None or self._is_stopping:
                return
            self._failure, tell = failure, self._on_failure
        _log.error("the ranks of a model have ended: %s", failure.reason)
        try:
            self._kill()
        finally:
            # Requests wait for it.
            if tell is not None:
                tell(failure)

    def _kill(self) -> None:
        for rank in self.ranks:
            if not rank.process.has_ended():
                rank.process.kill()

    def _stopped(self, symptom: str = "the ranks of the model were stopped") -> EngineStoppedError:
        # A closed connection, or one that a peer lost, is seen a moment before the watcher has the reason.
        deadline_s = time.monotonic() + _STOP_LIMIT_S
        while self._failure is None and not self._is_stopping and time.monotonic() < deadline_s:
            time.sleep(_POLL_S / 10)
        self._fail(RankFailure(symptom))
        failure = self._failure or RankFailure(symptom)
        return EngineStoppedError(failure.reason, ended_process=failure.ended_process)


def _death_of(rank: _Rank) -> RankFailure:
    status = rank.process.wait()
    process = f"{rank.name} {exit_in_words(status)}"
    # What it said last may speak of this machine.
    words = log_tail(rank.log, 3) if status >= 0 else ""
    return RankFailure(f"{process}: {words}" if words else process, process)
