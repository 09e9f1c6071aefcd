"""Keeps a process, with all threads that it has, on one processor."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["pin"]


def pin(process_id: int, core: int) -> None:
    """Linux counts threads, and a process's number is that of its first one only."""
    for task in Path(f"/proc/{process_id}/task").iterdir():
        # It may end meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})
