"""The CPU as a backend. Always available; picks bf16 only where the instructions for it make it fast."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys

from workbench.backends.base import Backend
from workbench.backends.dtypes import DTYPE_NAMES
from workbench.backends.facts import DeviceInfo, DtypeChoice, MemoryInfo
from workbench.backends.processor import Processor
from workbench.errors import ConfigError

__all__ = ["CPUBackend"]

_MIB = 1024**2
# Without one of these, torch computes bf16 by widening each number, slower than fp32. "bf16" is the ARM spelling.
_FAST_BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


class CPUBackend(Backend):
    """The host's processor, seen as one device."""

    name = "cpu"
    device_type = "cpu"

    def __init__(self, processor: Processor | None = None) -> None:
        self._processor = processor or Processor()

    def unavailable_reason(self) -> str | None:
        """None: a CPU is always there."""
        return None

    def devices(self) -> list[DeviceInfo]:
        """One device; its free bytes and cores are bounded by affinity and container limits."""
        memory = self._processor.memory()
        return [
            DeviceInfo(
                index=0,
                name=self._processor.name(),
                total_bytes=memory.total_bytes,
                free_bytes=memory.free_bytes,
                dtypes=DTYPE_NAMES,
                architecture=" ".join((platform.machine(), *self._processor.flags())),
                num_cores=self._processor.num_physical_cores(),
            )
        ]

    def default_dtype(self, index: int = 0) -> DtypeChoice:
        """bf16 where the CPU has instructions for it, else fp32."""
        _check_index(index)
        flags = self._processor.flags()
        fast = next((flag for flag in _FAST_BF16_FLAGS if flag in flags), None)
        if fast:
            return DtypeChoice("bf16", f"the CPU has {fast}: bf16 halves the memory read per token")
        return DtypeChoice("fp32", f"the CPU has none of {', '.join(_FAST_BF16_FLAGS)}: bf16 would be emulated")

    def torch_device(self, index: int = 0) -> str:
        """ "cpu"."""
        _check_index(index)
        return "cpu"

    def memory(self, index: int = 0) -> MemoryInfo:
        """The host's memory within the container's limit; `process_bytes` is the resident size."""
        _check_index(index)
        return self._processor.memory()

    def get_memory_usage(self) -> dict[str, object]:
        """`{total_mb, used_mb, available_mb}` in MiB."""
        memory = self._processor.memory()
        return {
            "total_mb": memory.total_bytes / _MIB,
            "used_mb": (memory.total_bytes - memory.free_bytes) / _MIB,
            "available_mb": memory.free_bytes / _MIB,
        }

    def empty_cache(self) -> None:
        """Collect garbage and hand freed heap pages back to the system (glibc keeps them otherwise)."""
        gc.collect()
        if not sys.platform.startswith("linux"):
            return
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _check_index(index: int) -> None:
    if index != 0:
        raise ConfigError(f"device_index {index} does not exist: cpu has device 0 only")
