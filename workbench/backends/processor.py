"""The CPU as this process may use it: name, instruction sets, physical cores, memory. No torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import psutil

from workbench.backends.cgroup import Cgroup
from workbench.backends.facts import MemoryInfo

__all__ = ["Processor"]

# Instruction sets that decide which kernels are fast; the other hundred flags are left out.
_FLAGS_THAT_MATTER = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "i8mm",
    "bf16",
    "sve",
)


class Processor:
    """Facts about the CPU. `root` is where /proc and /sys are looked for, `affinity` gives the usable logical CPUs."""

    def __init__(self, root: Path = Path("/"), affinity: Callable[[], set[int]] | None = None) -> None:
        self._root = root
        self._cgroup = Cgroup(root)
        self._affinity = affinity or _usable_logical_cpus

    def name(self) -> str:
        """The model name, or the machine type where the system tells none."""
        return self._cpuinfo("model name") or platform.processor() or platform.machine()

    def flags(self) -> tuple[str, ...]:
        """Instruction sets that matter for speed, as the kernel spells them. Empty where the system tells none."""
        present = (self._cpuinfo("flags") or self._cpuinfo("Features") or "").split()
        return tuple(flag for flag in _FLAGS_THAT_MATTER if flag in present)

    def num_physical_cores(self) -> int:
        """Physical cores within this process's affinity and CPU quota; at least 1.

        A fractional quota is rounded down: a thread more than the quota would be throttled and hold up the rest.
        """
        cores = {self._core_of(cpu) for cpu in self._affinity()}
        quota = self._cgroup.cpu_quota()
        return max(1, len(cores) if quota is None else min(len(cores), int(quota)))

    def memory(self) -> MemoryInfo:
        """Memory bounded by the container's limit; `process_bytes` is the resident size."""
        system = psutil.virtual_memory()
        total, free = system.total, system.available
        limit = self._cgroup.memory_limit()
        if limit is not None:
            total, free = min(total, limit.limit_bytes), min(free, limit.free_bytes)
        return MemoryInfo(total, free, psutil.Process().memory_info().rss)

    def _core_of(self, cpu: int) -> str:
        # Hyperthreads of one core list the same siblings. Without the file each logical CPU counts as a core.
        siblings = self._root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            return siblings.read_text().strip()
        except OSError:
            return str(cpu)

    def _cpuinfo(self, field: str) -> str | None:
        try:
            text = (self._root / "proc/cpuinfo").read_text()
        except OSError:
            return None
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key.strip() == field:
                return value.strip()
        return None


def _usable_logical_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    # macOS and Windows have no affinity to honour, and psutil knows their physical cores.
    return set(range(psutil.cpu_count(logical=False) or 1))
