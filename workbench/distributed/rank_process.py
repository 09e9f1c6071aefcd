"""One process of a group as whoever started it sees it: a number, an end that can be waited for, a way to kill it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import threading
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from workbench.child_lifetime import python_command, python_environment

__all__ = ["ForkedRank", "RankProcess", "SpawnedRank", "rank_environment"]

# An exit status on its way through a pipe.
STATUS = struct.Struct("i")


class RankProcess(Protocol):
    """`end_fd` is readable once the process has ended."""

    pid: int
    end_fd: int

    def has_ended(self) -> bool: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...
    def close(self) -> None: ...


class SpawnedRank:
    """A process started by itself. It leaves when its standard input ends."""

    def __init__(self, connection_fd: int, shared_fd: int, log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                python_command("workbench.distributed.rank", str(connection_fd), str(shared_fd)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=rank_environment(),
                pass_fds=(connection_fd, shared_fd),
                # Of a session of its own: Ctrl-C in a notebook or a terminal is for the parent.
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.end_fd = os.pidfd_open(self.pid)

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Ask it to end: at once, unless it has something to save."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        return self._process.wait()

    def close(self) -> None:
        """Give back what belongs to an ended process."""
        assert self._process.stdin is not None  # a pipe
        self._process.stdin.close()
        os.close(self.end_fd)


class ForkedRank:
    """A process forked by a nursery, which writes its exit status to `end_fd`."""

    def __init__(self, pid: int, end_fd: int) -> None:
        self.pid = pid
        self.end_fd = end_fd
        self._status: int | None = None
        self._lock = threading.Lock()

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._status is not None or bool(wait([self.end_fd], 0))

    def terminate(self) -> None:
        """Ask it to end: at once, unless it has something to save."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # The nursery takes an ended process away a moment before it says so.
        if not self.has_ended():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal. A nursery's end takes its ranks with it."""
        with self._lock:
            if self._status is None:
                status = os.read(self.end_fd, STATUS.size)
                self._status = STATUS.unpack(status)[0] if status else -signal.SIGKILL
            return self._status

    def close(self) -> None:
        """Give back what belongs to an ended process."""
        os.close(self.end_fd)


def rank_environment() -> dict[str, str]:
    """For ranks and for what forks them."""
    # The ranks of a group talk on this machine only; without a name gloo would look for the host's address.
    return python_environment(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
