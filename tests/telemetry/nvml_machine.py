"""NVIDIA's driver on machines that are not here: GPUs, their processes, and the links between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 1024**3


@dataclass
class NVMLMachine:
    """A pynvml-like module. `nvlinks[i]` are the other ends of GPU i's links: a GPU's index, or "switch".

    `paths` are topology levels by pair, `processes` (id, used bytes) by GPU.
    """

    num_gpus: int
    nvlinks: dict[int, list[int | str]] = field(default_factory=dict)
    paths: dict[tuple[int, int], int] = field(default_factory=dict)
    processes: dict[int, list[tuple[int, int | None]]] = field(default_factory=dict)
    tells_processes: bool = True
    open_count: int = 0

    NVML_NVLINK_MAX_LINKS = 18
    NVML_NVLINK_DEVICE_TYPE_GPU = 0
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        self.open_count += 1

    def nvmlShutdown(self) -> None:
        self.open_count -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.num_gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-aaaa-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return SimpleNamespace(total=80 * GIB, free=(60 + handle) * GIB, used=(20 - handle) * GIB)

    def nvmlDeviceGetPciInfo(self, handle: int) -> object:
        return SimpleNamespace(busId=f"00000000:0{handle}:00.0".encode())

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[object]:
        if not self.tells_processes:
            raise self.NVMLError("not supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes.get(handle, [])]

    nvmlDeviceGetGraphicsRunningProcesses = nvmlDeviceGetComputeRunningProcesses

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        raise self.NVMLError("not found")

    def nvmlDeviceGetNvLinkState(self, handle: int, link: int) -> int:
        links = self.nvlinks.get(handle, [])
        if link >= len(links):
            raise self.NVMLError("not supported")
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: int, link: int) -> int:
        return 2 if self.nvlinks[handle][link] == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: int, link: int) -> object:
        return self.nvmlDeviceGetPciInfo(self.nvlinks[handle][link])

    def nvmlDeviceGetTopologyCommonAncestor(self, first: int, second: int) -> int:
        if (first, second) not in self.paths:
            raise self.NVMLError("unknown")
        return self.paths[first, second]
