"""A program on a terminal of its own, driven by keys and watched by what it writes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress

CTRL_C = "\x03"
CTRL_D = "\x04"


class Terminal:
    """Runs `command` with stdin, stdout and stderr on a pseudo-terminal, so that Ctrl-C interrupts it."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        # Everything written so far, and where the next look begins.
        self.written = ""
        self._seen = 0

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, timeout_s: float = 60.0) -> str:
        """What was written up to and with `text`, from the end of the last wait on."""
        return self._wait(lambda new: new.find(text) + len(text) if text in new else None, text, timeout_s)

    def wait_for_length(self, length: int, timeout_s: float = 60.0) -> str:
        """The next `length` characters."""
        return self._wait(lambda new: length if len(new) >= length else None, f"{length} characters", timeout_s)

    def leave(self, timeout_s: float = 60.0) -> int:
        """Press Ctrl-D until the program has ended, and give its exit code.

        One that comes while no line is being read (the last answer's end is still being written) is lost: the terminal
        stores it as a NUL, which means nothing to the line editor that takes over.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            with suppress(OSError):  # it has let go of the terminal, and is still ending
                self.press(CTRL_D)
            with suppress(subprocess.TimeoutExpired):
                return self.exit_code(timeout_s=1.0)
        raise AssertionError(f"Ctrl-D did not end it; on the terminal is:\n{self.written}")

    def exit_code(self, timeout_s: float = 60.0) -> int:
        while self._read(time.monotonic() + timeout_s):
            pass
        return self._process.wait(timeout_s)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _wait(self, end: Callable[[str], int | None], what: str, timeout_s: float) -> str:
        deadline_s = time.monotonic() + timeout_s
        while (length := end(self.written[self._seen :])) is None:
            assert self._read(deadline_s), f"{what!r} did not come; on the terminal is:\n{self.written}"
        start, self._seen = self._seen, self._seen + length
        return self.written[start : self._seen]

    def _read(self, deadline_s: float) -> bool:
        """Take what has been written; False when time is over or the program has closed the terminal."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline_s - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the last holder of the other end is gone
            return False
        self.written += data.decode(errors="replace")
        return bool(data)
