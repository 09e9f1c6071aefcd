"""Memory of a GPU: from the driver (NVML), else from torch. Never starts a CUDA context: that itself takes memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

import psutil

from workbench.backends.nvml import device_used_bytes, driver_uuid

__all__ = ["DeviceMemory", "NVMLDriver"]


class NVMLDriver(Protocol):
    """The calls of `pynvml` that are used here."""

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Any: ...


class DeviceMemory:
    """Probe of one device: bytes in use by everybody, and by this process and those it started (engines have processes
    of their own), where the driver tells that; else by this process's tensors.

    They are named `<backend>:<index>_used_bytes` and `<backend>:<index>_process_bytes`.
    `index` is torch's number of the device. The driver counts differently when CUDA_VISIBLE_DEVICES hides some, so
    `uuid` decides where it is known. Without a driver (AMD, or no NVML) both numbers come from torch, once something
    else has started CUDA in this process; until then there are none, and `driver_reason` says why.
    """

    def __init__(
        self, index: int = 0, uuid: str | None = None, *, backend: str = "cuda", driver: NVMLDriver | None = None
    ) -> None:
        self._index = index
        self._uuid = uuid
        self.name = f"{backend}:{index}"
        self._driver = driver
        self._handle: Any = None
        self.driver_reason = None if backend == "cuda" else f"the NVIDIA driver knows nothing of {backend} devices"

    def read(self) -> Mapping[str, float]:
        """Bytes in use now. Errors of a driver that worked before pass through."""
        torch = _torch_with_cuda()
        used_bytes = self._used_bytes(torch)
        numbers = {} if used_bytes is None else {f"{self.name}_used_bytes": float(used_bytes)}
        own_bytes = self._own_bytes()
        if own_bytes is None and torch is not None:
            own_bytes = torch.cuda.memory_allocated(self._index)
        if own_bytes is not None:
            numbers[f"{self.name}_process_bytes"] = float(own_bytes)
        return numbers

    def _own_bytes(self) -> int | None:
        """None where the driver shows none of these processes, as in most containers, or does not tell their bytes."""
        if self._handle is None or self._driver is None:
            return None
        # As in `_open`: a driver that does not tell.
        try:
            processes = self._driver.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except Exception:
            return None
        if not processes:
            return None
        own = psutil.Process()
        ids = {own.pid, *(child.pid for child in own.children(recursive=True))}
        told = [process.usedGpuMemory for process in processes if process.pid in ids]
        return sum(told) if told and None not in told else None

    def _used_bytes(self, torch: Any) -> int | None:
        if self._handle is None and self.driver_reason is None:
            self._open()
        if self._handle is not None and self._driver is not None:
            return device_used_bytes(self._driver, self._handle)
        if torch is None:
            return None
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._index)
        return int(total_bytes - free_bytes)

    def _open(self) -> None:
        """Find the device once; a machine without the driver is no error."""
        try:
            if self._driver is None:
                import pynvml

                self._driver = pynvml
            self._driver.nvmlInit()
            if self._uuid is None:
                self._handle = self._driver.nvmlDeviceGetHandleByIndex(self._index)
            else:
                self._handle = self._driver.nvmlDeviceGetHandleByUUID(driver_uuid(self._uuid))
        # pynvml's errors share no base that can be named before it is imported.
        except Exception as error:
            self.driver_reason = f"{type(error).__name__}: {error}"


def _torch_with_cuda() -> Any:
    """The torch module, if this process has started CUDA with it, else None."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return torch
