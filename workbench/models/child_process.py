"""A child process that is watched by polling: no threads, output in a log file, never left running."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["log_tail", "run_child"]

_POLL_S = 0.1
_STOP_TIMEOUT_S = 3.0


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    on_poll: Callable[[], None] = lambda: None,
) -> int:
    """Run `command` to its end and give its exit status; stdout and stderr go to `log`.

    `on_poll` is called about ten times a second. Whatever it raises (also KeyboardInterrupt arriving meanwhile)
    stops the child and passes through. The child's stdin is a pipe that ends when this process dies, which
    `workbench.child_lifetime.exit_with_parent` in the child notices.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment)
    try:
        while True:
            try:
                return child.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                on_poll()
    finally:
        _stop(child)


def log_tail(log: Path, num_lines: int = 8) -> str:
    """The last lines of a log, without empty ones; progress bars count as their last state."""
    try:
        text = log.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""
    # A bar writes each state after a carriage return; some end the line with one as well.
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1].strip() for line in text.split("\n")]
    return "\n".join([line for line in lines if line][-num_lines:])


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdin is not None:
        child.stdin.close()
