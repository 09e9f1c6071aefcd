"""Compiles kernels in a process of its own, which holds up nobody who computes meanwhile: its results are on disk."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import tempfile
from collections.abc import Sequence

from workbench.child_lifetime import exit_in_words, python_command, python_environment
from workbench.engine.warm_up.kernel_job import KernelJob

__all__ = ["CompileProcess"]

_MODULE = "workbench.engine.warm_up.compile_child"
_MOST_LAST_WORDS = 400


class CompileProcess:
    """Starts at once and ends by itself; `close`, or the end of the thread that made it, ends it earlier.

    Nothing here waits: `poll` reads what it has said so far.
    """

    def __init__(self, jobs: Sequence[KernelJob]) -> None:
        """OSError where no process can be started."""
        self.num_jobs = len(jobs)
        self.num_done = 0
        # What could not be compiled, with the reason; why there is more to come that never will, None if all was said.
        self.failures: list[str] = []
        self.end_reason: str | None = None
        self._said = b""
        self._printed = tempfile.TemporaryFile()
        # A file, since a pipe would have to be fed while the process is still starting.
        with tempfile.TemporaryFile() as wanted:
            pickle.dump(list(jobs), wanted)
            wanted.seek(0)
            self._process = subprocess.Popen(
                python_command(_MODULE, str(os.getpid())),
                stdin=wanted,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                env=python_environment(PYTHONSAFEPATH="1"),
            )
        assert self._process.stdout is not None  # it was asked for
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> bool:
        """Take in what has been said; whether the process has ended."""
        assert self._process.stdout is not None  # it was asked for
        has_ended = self._process.poll() is not None
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._process.stdout.fileno(), 65536):
                self._said += piece
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            self.num_done += 1
            if line:
                self.failures.append(line.decode(errors="replace"))
        if has_ended and self.num_done < self.num_jobs and self.end_reason is None:
            self._printed.seek(0)
            last_words = self._printed.read().decode(errors="replace").strip()[-_MOST_LAST_WORDS:]
            self.end_reason = f"the compiling process {exit_in_words(self._process.returncode)} [{last_words}]"
        return has_ended

    def close(self) -> None:
        """End it, and the processes it started, if it has not ended. Harmless when called twice."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._printed.close()
