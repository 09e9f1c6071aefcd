"""Free memory of NVIDIA devices as the driver tells it, without starting CUDA. Finds them by UUID, never by index."""

from __future__ import annotations

from typing import Any

__all__ = ["NVML", "device_used_bytes", "driver_uuid"]

# The driver counts memory that CUDA keeps for itself, a few percent; slices start at halves.
_SAME_SIZE_SHARE = 0.1


class NVML:
    """The driver's management library. `library` is a pynvml-like module; by default pynvml where it is installed.

    CUDA numbers only the devices that CUDA_VISIBLE_DEVICES leaves and may order them differently,
    so a CUDA index says nothing here: ask by UUID.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = library or _pynvml()

    def free_bytes(self, uuid: str | None, total_bytes: int) -> int | None:
        """Free bytes of the device or MIG slice with this UUID (bare, as torch gives it); None when unknown.

        `total_bytes` is the size as CUDA sees it. A driver's device of another size is not the one that is meant:
        a slice may carry the UUID of the whole GPU.
        """
        if self._library is None or not uuid:
            return None
        try:
            self._library.nvmlInit()
        except self._library.NVMLError:
            return None
        try:
            return self._read_free(uuid, total_bytes)
        finally:
            self._library.nvmlShutdown()

    def _read_free(self, uuid: str, total_bytes: int) -> int | None:
        for prefix in ("GPU-", "MIG-"):
            try:
                handle = self._library.nvmlDeviceGetHandleByUUID(prefix + uuid)
                memory = self._library.nvmlDeviceGetMemoryInfo(handle)
            except self._library.NVMLError:
                continue
            if abs(memory.total - total_bytes) <= _SAME_SIZE_SHARE * total_bytes:
                return int(memory.free)
        return None


def device_used_bytes(library: Any, handle: Any) -> int:
    """What programs use of a device, as `nvidia-smi` has it. `library` is a pynvml.

    The older of the driver's two calls counts as used what the driver keeps for itself too: 616 MiB of an idle H200.
    Raises the library's errors.
    """
    newer = getattr(library, "nvmlMemory_v2", None)
    if newer is not None:
        # A driver from before 2022 has the older call only; pynvml's errors share no base that can be named here.
        try:
            return int(library.nvmlDeviceGetMemoryInfo(handle, version=newer).used)
        except Exception:
            pass
    return int(library.nvmlDeviceGetMemoryInfo(handle).used)


def driver_uuid(uuid: str) -> str:
    """A GPU's UUID as the driver wants it, "GPU-..." or "MIG-..."; torch writes it bare."""
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
