"""How busy the processors are: this process's share of its CPU cores, and each GPU as its driver sees it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from workbench.backends import BackendStatus
from workbench.backends.nvml import driver_uuid

__all__ = ["ProcessorUse"]


class ProcessorUse:
    """Probe: `cpu_busy_percent` of the cores that this process may use, `<backend>:<index>_busy_percent` of each GPU.

    NVIDIA GPUs are asked through NVML, AMD ones through amdsmi, each where it is installed; a GPU that can't be asked
    is left out. The first reading of the CPU has nothing to compare with and is left out too.
    """

    def __init__(
        self, statuses: Sequence[BackendStatus] = (), *, readers: Mapping[str, Callable[[], float]] | None = None
    ) -> None:
        self._process = psutil.Process()
        self._num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._has_read_cpu = False
        self._readers = dict(_gpu_readers(statuses) if readers is None else readers)

    def read(self) -> Mapping[str, float]:
        """Percent since the last reading (CPU), and as the driver averages it (GPUs)."""
        numbers = {}
        busy_percent = self._process.cpu_percent() / self._num_cores
        if self._has_read_cpu:
            numbers["cpu_busy_percent"] = min(100.0, busy_percent)
        self._has_read_cpu = True
        for name, reader in self._readers.items():
            numbers[f"{name}_busy_percent"] = reader()
        return numbers


def _gpu_readers(statuses: Sequence[BackendStatus]) -> dict[str, Callable[[], float]]:
    readers = {}
    for status in statuses:
        if not status.available or status.backend.device_type == "cpu":
            continue
        for device in status.devices:
            reader = _nvml_reader(device.uuid) if status.name == "cuda" else _torch_reader(device.index)
            if reader is not None:
                readers[f"{status.name}:{device.index}"] = reader
    return readers


def _nvml_reader(uuid: str | None) -> Callable[[], float] | None:
    if uuid is None:
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(driver_uuid(uuid))
        pynvml.nvmlDeviceGetUtilizationRates(handle)
    # A machine without the driver, or a slice of a GPU, which has no such figure; pynvml's errors share no base.
    except Exception:
        return None
    return lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _torch_reader(index: int) -> Callable[[], float] | None:
    torch: Any = sys.modules.get("torch")
    try:
        torch.cuda.utilization(index)
    # torch needs amdsmi for this, and says so with an error of its own.
    except Exception:
        return None
    return lambda: float(torch.cuda.utilization(index))
