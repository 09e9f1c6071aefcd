"""Whether weights fit before a byte is read, and giving memory back after a load that failed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from workbench.backends import CPUBackend, MemoryInfo, dtype_bytes, get_backend
from workbench.errors import OutOfMemoryError

__all__ = ["all_or_nothing", "check_memory", "device_memory", "release_memory"]


def device_memory(device: str) -> MemoryInfo:
    """Memory of a torch device ("cpu", "cuda", "cuda:1"), read now."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return CPUBackend().memory()
    return get_backend(_gpu_backend_name()).memory(int(index or 0))


def check_memory(needed_bytes: int, device: str, dtype: str) -> None:
    """Raise `OutOfMemoryError`, saying what would fit, when `needed_bytes` of weights in `dtype` are not free."""
    free_bytes = device_memory(device).free_bytes
    if needed_bytes <= free_bytes:
        return
    would_fit = _would_fit(needed_bytes, free_bytes, device, dtype)
    raise OutOfMemoryError(
        f"the weights need {_gb(needed_bytes)} in {dtype} and {device} has {_gb(free_bytes)} free; would fit: "
        f"{', '.join(would_fit)}",
        needed_bytes=needed_bytes,
        free_bytes=free_bytes,
        would_fit=would_fit,
    )


def release_memory(device: str) -> None:
    """Collect garbage and hand memory that nothing uses any more back to the device."""
    if not device.startswith("cpu"):
        get_backend(_gpu_backend_name()).empty_cache()
    else:
        CPUBackend().empty_cache()


@contextmanager
def all_or_nothing(device: str) -> Iterator[None]:
    """Give memory back when the load inside fails, even while its exception is kept."""
    try:
        yield
    except BaseException as error:
        # A notebook keeps the last exception, and its frames would keep the tensors.
        _forget_frames(error)
        release_memory(device)
        raise


def _forget_frames(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _would_fit(needed_bytes: int, free_bytes: int, device: str, dtype: str) -> tuple[str, ...]:
    num_weights = needed_bytes // dtype_bytes(dtype)
    choices = []
    if dtype == "fp32" and num_weights * dtype_bytes("bf16") <= free_bytes:
        choices.append(f"bf16 ({_gb(num_weights * dtype_bytes('bf16'))})")
    if not device.startswith("cpu") and needed_bytes <= device_memory("cpu").free_bytes:
        choices.append(f"the CPU ({_gb(device_memory('cpu').free_bytes)} free)")
    choices.append(f"a model of up to {free_bytes / dtype_bytes(dtype) / 1e9:.2f} billion weights in {dtype}")
    return tuple(choices)


def _gpu_backend_name() -> str:
    import torch

    return "rocm" if torch.version.hip else "cuda"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
