"""The GPUs that torch shows on this machine, and where they differ from the table. Torch is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.aws.catalogue import InstanceType

__all__ = ["Difference", "ObservedGPU", "ObservedGPUs", "compare_with_table", "observe_gpus"]

# Drivers, ECC and firmware keep a part of a GPU's memory for themselves: 4 to 10 % on the types in the table.
_SMALLEST_VISIBLE_SHARE = 0.85
_LARGEST_VISIBLE_SHARE = 1.03
_GIB = 1024**3


@dataclass(frozen=True)
class ObservedGPU:
    """One device as torch gives it: name, bytes, "sm_75" or "gfx942"."""

    name: str
    total_bytes: int
    architecture: str


@dataclass(frozen=True)
class ObservedGPUs:
    """All devices torch shows. `backend_name` is "cuda" or "rocm", None without devices; then `reason` says why."""

    devices: tuple[ObservedGPU, ...]
    backend_name: str | None
    reason: str = ""


@dataclass(frozen=True)
class Difference:
    """One point where the machine is not as the table says. Values are words for people."""

    what: str
    table: str
    observed: str


def observe_gpus(torch: Any = None) -> ObservedGPUs:
    """What torch sees here. `torch` is the module; by default it is imported, which takes seconds the first time."""
    if torch is None:
        try:
            import torch
        except ImportError:
            return ObservedGPUs((), None, "torch is not installed")
    if not torch.cuda.is_available():
        has_gpu_build = bool(torch.version.cuda or torch.version.hip)
        return ObservedGPUs((), None, "torch finds no usable GPU" if has_gpu_build else "torch is built for CPUs only")
    is_rocm = torch.version.hip is not None
    devices = [_observe(torch.cuda.get_device_properties(i), is_rocm) for i in range(torch.cuda.device_count())]
    return ObservedGPUs(tuple(devices), "rocm" if is_rocm else "cuda")


def compare_with_table(expected: InstanceType, observed: ObservedGPUs) -> tuple[Difference, ...]:
    """Every difference between the table's row and the devices, empty when they agree.

    Less memory than the table's is no difference within what drivers keep for themselves.
    """
    if not observed.devices:
        if not expected.gpu_count:
            return ()
        return (Difference("GPUs", f"{expected.gpu_count} x {expected.accelerator}", f"none ({observed.reason})"),)
    differences: list[Difference] = []
    if len(observed.devices) != expected.gpu_count:
        differences.append(Difference("GPU count", str(expected.gpu_count), str(len(observed.devices))))
    if expected.gpu is None:
        return tuple(differences)
    architectures = {device.architecture for device in observed.devices}
    if architectures != {expected.gpu.architecture}:
        differences.append(Difference("architecture", expected.gpu.architecture, ", ".join(sorted(architectures))))
    share = min(device.total_bytes for device in observed.devices) / expected.memory_bytes_per_gpu
    if not _SMALLEST_VISIBLE_SHARE <= share <= _LARGEST_VISIBLE_SHARE:
        differences.append(Difference("memory per GPU", _gib(expected.memory_bytes_per_gpu), _sizes(observed.devices)))
    return tuple(differences)


def _observe(properties: Any, is_rocm: bool) -> ObservedGPU:
    # "gfx90a:sramecc+:xnack-" on ROCm.
    architecture = properties.gcnArchName.split(":")[0] if is_rocm else f"sm_{properties.major}{properties.minor}"
    return ObservedGPU(properties.name, properties.total_memory, architecture)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"


def _sizes(devices: Sequence[ObservedGPU]) -> str:
    counts = Counter(_gib(device.total_bytes) for device in devices)
    return ", ".join(size if len(counts) == 1 else f"{count} x {size}" for size, count in counts.items())
