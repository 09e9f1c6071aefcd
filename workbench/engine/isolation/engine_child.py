"""The child process that an engine runs in, as an operating system sees it: started, killed, its end in words."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass

import psutil

from workbench.child_lifetime import exit_in_words, python_command, python_environment
from workbench.engine.isolation.message_pipe import MessagePipe

__all__ = ["ChildEnd", "EngineChild"]

_MODULE = "workbench.engine.isolation.child"
# From the end of its pipe to its own: the system may still be taking gigabytes back.
_EXIT_TIMEOUT_S = 20.0
_MOST_LAST_WORDS = 800
_MOST_FRAMES = 4


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended ("was killed (SIGKILL)"), and what it printed last; in words the whole of it."""

    pid: int
    how: str
    last_words: str

    def __str__(self) -> str:
        words = f"process {self.pid} {self.how}"
        return f"{words} [{self.last_words}]" if self.last_words else words


class EngineChild:
    """A new interpreter (nothing is forked) in this process group. Start it in a thread that outlives it."""

    def __init__(self) -> None:
        # What it prints, and what the interpreter says when it crashes. It has no name, so nothing is left on the disk.
        self._printed = tempfile.TemporaryFile()
        ours, theirs = socket.socketpair()
        # A terminal's Ctrl-C goes to the whole group. The child is born with it blocked, and then ignores it.
        blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                python_command(_MODULE, str(theirs.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                pass_fds=[theirs.fileno()],
                env=python_environment(PYTHONSAFEPATH="1"),
            )
        except BaseException:
            ours.close()
            self._printed.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)
            theirs.close()
        self.pipe = MessagePipe(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def private_bytes(self) -> int:
        """Memory that goes back to the system when it ends; 0 once it has."""
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self.pid).memory_full_info().uss)
        return 0

    def kill(self) -> None:
        """End it now. Harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def finish(self) -> ChildEnd:
        """Wait for its end, which is near once its pipe has ended, give everything back, and say how it ended."""
        try:
            exit_status = self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            exit_status = self._process.wait()
        last_words = self._last_words() if exit_status else ""
        self._printed.close()
        self.pipe.close()
        return ChildEnd(self.pid, exit_in_words(exit_status), last_words)

    def _last_words(self) -> str:
        """The end of what was printed; of a crash where it happened, which the interpreter tells thread by thread."""
        self._printed.seek(0)
        lines = self._printed.read().decode("utf-8", errors="replace").strip().splitlines()
        crashes = [number for number, line in enumerate(lines) if line.startswith("Fatal Python error")]
        if crashes:
            where = [number for number, line in enumerate(lines) if line.startswith("Current thread")]
            lines = [lines[crashes[-1]], *(lines[where[-1] + 1 :][:_MOST_FRAMES] if where else [])]
        return "\n".join(lines)[-_MOST_LAST_WORDS:]
