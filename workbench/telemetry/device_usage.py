"""How much of a device is in use, by whom as far as the system can tell: the host's memory, or a GPU's."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from workbench.backends.nvml import driver_uuid

__all__ = ["DeviceUsage", "GPUUsage", "HostUsage", "UsageReader"]

# What a CUDA context takes on the device, where the driver cannot say what this process has there.
_CONTEXT_BYTES = 520 * 1024**2


@dataclass(frozen=True)
class DeviceUsage:
    """Bytes. `reserved` is what this process's allocator holds, of which `allocated` is handed out now and
    `allocated_peak` was at most; all three are 0 where the allocator keeps no figures."""

    used: int
    process: int
    allocated: int = 0
    allocated_peak: int = 0
    reserved: int = 0


class UsageReader(Protocol):
    """Reads a device's usage now."""

    name: str

    def read_usage(self) -> DeviceUsage: ...


class HostUsage:
    """The host's memory; this process's part is its resident size."""

    name = "cpu"

    def __init__(self, process: psutil.Process | None = None) -> None:
        self._process = process or psutil.Process()

    def read_usage(self) -> DeviceUsage:
        """Used is what cannot be given to a process without swapping; caches of files do not count."""
        memory = psutil.virtual_memory()
        resident = self._process.memory_info().rss
        return DeviceUsage(max(memory.total - memory.available, resident), resident)


class GPUUsage:
    """A GPU that torch uses in this process. `torch` and `driver` (pynvml) are for tests."""

    def __init__(self, index: int = 0, *, backend: str = "cuda", torch: Any = None, driver: Any = None) -> None:
        self.name = f"{backend}:{index}"
        self._index = index
        self._torch = torch
        self._driver = driver

    def read_usage(self) -> DeviceUsage:
        """All zero before torch has put something on the device: reading must not start it, which itself takes half a
        gigabyte there."""
        torch = self._torch or sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return DeviceUsage(0, 0)
        # torch counts as started once it has looked at a device; the device is not, until something is put there.
        statistics = torch.cuda.memory_stats(self._index)
        if not statistics.get("reserved_bytes.all.peak", 0):
            return DeviceUsage(0, 0)
        free, total = torch.cuda.mem_get_info(self._index)
        reserved = statistics.get("reserved_bytes.all.current", 0)
        process = self._process_bytes(torch)
        return DeviceUsage(
            used=total - free,
            process=min(total - free, reserved + _CONTEXT_BYTES) if process is None else process,
            allocated=statistics.get("allocated_bytes.all.current", 0),
            allocated_peak=statistics.get("allocated_bytes.all.peak", 0),
            reserved=reserved,
        )

    def _process_bytes(self, torch: Any) -> int | None:
        """What the driver counts for this process; None where it cannot say, as in most containers."""
        try:
            driver = self._driver
            if driver is None:
                import pynvml

                driver = pynvml
            driver.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(self._index).uuid)
            handle = driver.nvmlDeviceGetHandleByUUID(driver_uuid(uuid))
            mine = [p for p in driver.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
            used_bytes: int | None = mine[0].usedGpuMemory if mine else None
            return used_bytes
        # pynvml's errors share no base that can be named before it is imported.
        except Exception:
            return None
