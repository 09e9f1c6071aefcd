"""Holds an engine before its next step, whichever process it runs in."""

from __future__ import annotations

import fcntl
import os
import select
from pathlib import Path


class Gate:
    """Plain values until it is used, so it can go to the engine's process, which calls `pass_through`.

    A closed gate is an exclusive lock on a file, which the engine's steps take shared. Whoever finds it closed says so
    through a named pipe.
    """

    def __init__(self, folder: Path, ring_at_step: int | None = None) -> None:
        self._ring_at_step = ring_at_step
        self._num_steps = 0
        self._lock_path = str(folder / "lock")
        self._bell_path = str(folder / "bell")
        self._fault_path = str(folder / "fault")
        Path(self._lock_path).touch()
        os.mkfifo(self._bell_path)
        # Held open for reading and writing, so that nobody ever waits for the other side to open it.
        self._bell = os.open(self._bell_path, os.O_RDWR)
        self._held = None

    def __getstate__(self) -> dict:
        return {**vars(self), "_bell": None, "_held": None}

    def lock(self) -> None:
        """Close it without waiting for anybody."""
        self._held = open(self._lock_path)
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def close(self, timeout_s: float = 30) -> None:
        """Hold the engine in its next step, and wait until it is there. It must have work."""
        self.lock()
        ready, _, _ = select.select([self._bell], [], [], timeout_s)
        assert ready, "the engine does not come to the gate"
        os.read(self._bell, 1)

    def open(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def fail_next_step(self, message: str) -> None:
        """The step that passes next raises RuntimeError."""
        Path(self._fault_path).write_text(message)

    def remove(self) -> None:
        self.open()
        os.close(self._bell)

    def fileno(self) -> int:
        """Where the bell is heard."""
        return self._bell

    def pass_through(self, plan: object = None) -> None:
        """For the engine: wait while the gate is closed."""
        self._num_steps += 1
        if self._num_steps == self._ring_at_step:
            self._ring()
        with open(self._lock_path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                self._ring()
                fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.exists(self._fault_path):
            message = Path(self._fault_path).read_text()
            os.unlink(self._fault_path)
            raise RuntimeError(message)

    def wait_until_open(self) -> None:
        with open(self._lock_path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)

    def _ring(self) -> None:
        with open(self._bell_path, "wb", buffering=0) as bell:
            bell.write(b"!")
