"""What NVIDIA's driver says of its GPUs: memory, the processes on them, and how each pair is linked. Starts no CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import psutil

__all__ = ["DriverGPU", "GPULink", "GPUProcess", "read_driver_gpus", "read_links"]

# How two GPUs reach each other over the board, by the driver's level; short names as `nvidia-smi topo -m` has them.
_PATHS = {
    0: ("board", "the same board"),
    10: ("PIX", "one PCIe switch"),
    20: ("PXB", "several PCIe switches"),
    30: ("PHB", "a PCIe host bridge"),
    40: ("NODE", "the PCIe host bridges of one NUMA node"),
    50: ("SYS", "the link between NUMA nodes"),
}


@dataclass(frozen=True)
class GPUProcess:
    """Who holds memory of a GPU. `name` and `used_bytes` are None where the driver or the system does not tell."""

    process_id: int
    name: str | None
    used_bytes: int | None
    is_this_process: bool


@dataclass(frozen=True)
class DriverGPU:
    """One GPU as the driver numbers it; `uuid` has the driver's "GPU-" before it.

    `processes` is None where the driver does not say; inside a container it often sees none of them.
    """

    index: int
    model: str
    uuid: str
    total_bytes: int
    free_bytes: int
    processes: tuple[GPUProcess, ...] | None


@dataclass(frozen=True)
class GPULink:
    """How two GPUs (their driver's indexes) reach each other.

    `short` is what `nvidia-smi topo -m` shows: "NV4" for four NVLinks, else the PCIe path; `words` says it in full.
    """

    first: int
    second: int
    kind: str
    num_nvlinks: int
    short: str
    words: str


def read_driver_gpus(driver: Any) -> list[DriverGPU]:
    """All GPUs of `driver`, a pynvml-like module that was initialised."""
    return [_read_gpu(driver, index, handle) for index, handle in enumerate(_handles(driver))]


def read_links(driver: Any) -> list[GPULink]:
    """Every pair of the driver's GPUs; a pair of which the driver says nothing is left out."""
    ends = [_NVLinks(driver, handle) for handle in _handles(driver)]
    links = (_link(driver, first, second, ends) for first, second in combinations(range(len(ends)), 2))
    return [link for link in links if link is not None]


class _NVLinks:
    """A GPU's active NVLinks, by what is at their other ends."""

    def __init__(self, driver: Any, handle: Any) -> None:
        self.handle = handle
        self.bus_id = _bus_id(_answer(driver, lambda: driver.nvmlDeviceGetPciInfo(handle)))
        self.num_to_switches = 0
        self._num_by_bus_id: dict[str | None, int] = {}
        for number in range(driver.NVML_NVLINK_MAX_LINKS):
            # Numbers past the GPU's last link are refused, and so are all of a GPU that has none.
            is_active = _answer(driver, partial(driver.nvmlDeviceGetNvLinkState, handle, number))
            if not is_active:
                continue
            kind = _answer(driver, partial(driver.nvmlDeviceGetNvLinkRemoteDeviceType, handle, number))
            if kind == driver.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                self.num_to_switches += 1
                continue
            other = _bus_id(_answer(driver, partial(driver.nvmlDeviceGetNvLinkRemotePciInfo, handle, number)))
            self._num_by_bus_id[other] = self._num_by_bus_id.get(other, 0) + 1

    def num_to(self, other: _NVLinks) -> int:
        """Links that end at another GPU, or, over switches, that both have into them."""
        direct = self._num_by_bus_id.get(other.bus_id, 0) if other.bus_id else 0
        return direct or min(self.num_to_switches, other.num_to_switches)


def _link(driver: Any, first: int, second: int, ends: list[_NVLinks]) -> GPULink | None:
    num_nvlinks = ends[first].num_to(ends[second])
    if num_nvlinks:
        over = " over switches" if ends[first].num_to_switches else ""
        return GPULink(first, second, "NVLink", num_nvlinks, f"NV{num_nvlinks}", f"{num_nvlinks} NVLinks{over}")
    handles = ends[first].handle, ends[second].handle
    level = _answer(driver, lambda: driver.nvmlDeviceGetTopologyCommonAncestor(*handles))
    if level not in _PATHS:
        return None
    short, words = _PATHS[level]
    return GPULink(first, second, "PCIe" if level else "board", 0, short, f"PCIe: {words}" if level else words)


def _handles(driver: Any) -> list[Any]:
    return [driver.nvmlDeviceGetHandleByIndex(index) for index in range(driver.nvmlDeviceGetCount())]


def _read_gpu(driver: Any, index: int, handle: Any) -> DriverGPU:
    memory = driver.nvmlDeviceGetMemoryInfo(handle)
    return DriverGPU(
        index=index,
        model=driver.nvmlDeviceGetName(handle),
        uuid=driver.nvmlDeviceGetUUID(handle),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        processes=_processes(driver, handle),
    )


def _processes(driver: Any, handle: Any) -> tuple[GPUProcess, ...] | None:
    """Computing and drawing processes, largest first; one that does both counts once."""
    found: dict[int, GPUProcess] = {}
    lists = [
        _answer(driver, lambda: driver.nvmlDeviceGetComputeRunningProcesses(handle)),
        _answer(driver, lambda: driver.nvmlDeviceGetGraphicsRunningProcesses(handle)),
    ]
    if lists == [None, None]:
        return None
    for process in (each for some in lists for each in some or ()):
        used = None if process.usedGpuMemory is None else int(process.usedGpuMemory)
        found.setdefault(
            process.pid, GPUProcess(process.pid, _name(driver, process.pid), used, process.pid == os.getpid())
        )
    return tuple(sorted(found.values(), key=lambda process: -(process.used_bytes or 0)))


def _name(driver: Any, process_id: int) -> str | None:
    try:
        return psutil.Process(process_id).name()
    except psutil.Error:
        # Of another namespace, or gone.
        name: str | None = _answer(driver, lambda: driver.nvmlSystemGetProcessName(process_id))
        return name


def _bus_id(info: Any) -> str | None:
    if info is None:
        return None
    text = info.busId
    return (text.decode() if isinstance(text, bytes) else str(text)).lower()


def _answer(driver: Any, ask: Callable[[], Any]) -> Any:
    """What the driver says, None where it does not support the question."""
    try:
        return ask()
    except driver.NVMLError:
        return None
