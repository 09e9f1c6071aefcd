"""What CUDA and ROCm share: both are reached through `torch.cuda`. Which build torch is, the subclasses decide."""

from __future__ import annotations

import gc
import os
import warnings
from abc import abstractmethod
from typing import Any

from workbench.backends.base import Backend
from workbench.backends.facts import DeviceInfo, MemoryInfo
from workbench.backends.torch_build import read_torch_build
from workbench.errors import ConfigError

__all__ = ["GPUBackend"]

_MIB = 1024**2


class GPUBackend(Backend):
    """GPUs behind `torch.cuda`. `probe` is a torch-like module; torch itself, imported on first use, by default."""

    device_type = "cuda"
    gpu_type: str
    # Environment variables that hide devices from this kind of torch build.
    visibility_variables: tuple[str, ...]

    def __init__(self, probe: Any = None) -> None:
        self._probe = probe

    @abstractmethod
    def _wrong_build(self, torch: Any) -> str | None:
        """Why this torch build is not for this backend, or None."""

    @abstractmethod
    def _describe(self, torch: Any, index: int, properties: Any) -> DeviceInfo:
        """Facts of one device from torch's device properties."""

    def unavailable_reason(self) -> str | None:
        """The wrong build, no driver, a driver that fails, or no visible device, in words; None when usable."""
        build = read_torch_build() if self._probe is None else None
        reason = None if build is None else self._wrong_build(build)
        if reason is not None:
            return reason
        torch = self._torch()
        if torch is None:
            return "torch is not installed"
        return self._wrong_build(torch) or self._start_failure(torch)

    def devices(self) -> list[DeviceInfo]:
        """Visible devices in torch's numbering. Does not start a context on a device where the driver can be asked."""
        if not self.is_available():
            return []
        torch = self._torch()
        return [
            self._describe(torch, index, torch.cuda.get_device_properties(index))
            for index in range(torch.cuda.device_count())
        ]

    def torch_device(self, index: int = 0) -> str:
        """ "cuda:0" for index 0, on CUDA and on ROCm alike."""
        self._check_index(index)
        return f"cuda:{index}"

    def memory(self, index: int = 0) -> MemoryInfo:
        """Free and total as the runtime sees them (starts a context); `process_bytes` is what torch has reserved."""
        self._check_index(index)
        cuda = self._torch().cuda
        free, total = cuda.mem_get_info(index)
        return MemoryInfo(total, free, cuda.memory_reserved(index))

    def get_memory_usage(self) -> dict[str, object]:
        """`{"cuda:0": {allocated_mb, reserved_mb, free_mb, total_mb, gpu_type}, ...}` in MiB; on ROCm "rocm:0"."""
        if not self.is_available():
            return {}
        cuda = self._torch().cuda
        return {
            f"{self.name}:{device.index}": {
                "allocated_mb": cuda.memory_allocated(device.index) / _MIB,
                "reserved_mb": cuda.memory_reserved(device.index) / _MIB,
                "free_mb": device.free_bytes / _MIB,
                "total_mb": device.total_bytes / _MIB,
                "gpu_type": self.gpu_type,
            }
            for device in self.devices()
        }

    def empty_cache(self) -> None:
        """Collect garbage and hand torch's unused blocks back to the driver."""
        gc.collect()
        torch = self._torch()
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _torch(self) -> Any:
        if self._probe is None:
            try:
                import torch
            except ImportError:
                return None
            self._probe = torch
        return self._probe

    def _start_failure(self, torch: Any) -> str | None:
        """Why no device can be used, taken from what torch warns or raises while it looks."""
        # torch wraps what fails while it starts in an exception of its own that is no RuntimeError.
        deferred = getattr(torch.cuda, "DeferredCudaCallError", RuntimeError)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if torch.cuda.is_available() and torch.cuda.device_count() > 0:
                    # Reading a device starts the runtime: a driver that only half works fails here, not later.
                    torch.cuda.get_device_properties(0)
                    return None
                # Looking is silent about a missing driver; starting says why.
                torch.cuda.init()
            except (RuntimeError, AssertionError, deferred) as error:
                return self._in_words(str(error))
        return self._in_words(str(caught[0].message) if caught else "no device was found")

    def _in_words(self, message: str) -> str:
        first_line = message.strip().partition("\n")[0].rstrip(".") or "no device was found"
        for variable in self.visibility_variables:
            value = os.environ.get(variable)
            if value is not None and value.strip() in ("", "-1"):
                return f"{variable}={value!r} hides every device ({first_line})"
        return first_line

    def _check_index(self, index: int) -> None:
        self.require_available()
        count = self._torch().cuda.device_count()
        if not 0 <= index < count:
            raise ConfigError(f"device_index {index} does not exist: {self.name} has devices 0 to {count - 1}")
