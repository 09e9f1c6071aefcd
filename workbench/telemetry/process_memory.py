"""Memory of this process, as the operating system sees it. Knows nothing of devices."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psutil

__all__ = ["ProcessMemory"]


class ProcessMemory:
    """Probe: `process_memory_bytes`, the resident set of `pid` (this process by default)."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(os.getpid() if pid is None else pid)

    def read(self) -> Mapping[str, float]:
        """Bytes resident now."""
        return {"process_memory_bytes": float(self._process.memory_info().rss)}
