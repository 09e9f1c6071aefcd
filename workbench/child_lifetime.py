"""Starting this package's own modules as child processes that never outlive their parent, and why one ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

__all__ = ["die_with_parent", "exit_in_words", "exit_with_parent", "python_command", "python_environment"]

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def python_environment(**variables: str) -> dict[str, str]:
    """This process's environment for a `python -m` child that must find this package, plus `variables`."""
    package_root = str(Path(__file__).resolve().parents[1])
    python_path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": python_path, **variables}


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package with the same interpreter."""
    return [sys.executable, "-m", module, *arguments]


def exit_with_parent() -> None:
    """For the child: leave when stdin ends, which is when the parent is gone, however it went."""

    def watch() -> None:
        # Not sys.stdin: its lock, held while blocked, aborts the interpreter at a normal exit.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def die_with_parent(parent_pid: int) -> None:
    """For the child, on Linux: have the system kill it when the thread that started it ends, as with its process.

    So that thread must live as long as the child should. A pipe that ends is no full replacement: whatever the parent
    forks holds the pipe open. `parent_pid` is the parent's, which may be gone already. Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def exit_in_words(exit_status: int) -> str:
    """What an exit status (negative: the signal's number) says of how a process ended."""
    if exit_status >= 0:
        return f"ended with exit status {exit_status}"
    try:
        name = signal.Signals(-exit_status).name
    except ValueError:
        name = f"signal {-exit_status}"
    if name == "SIGKILL":
        return "was killed (SIGKILL), which is also what the system does when memory runs out"
    if name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"):
        return f"crashed ({name})"
    return f"was ended by {name}"
