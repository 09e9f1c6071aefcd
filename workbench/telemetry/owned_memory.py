"""Probe: a device's memory by owner, live. Knows a model only by the bytes of its weights and cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workbench.telemetry.device_usage import UsageReader
from workbench.telemetry.memory_owners import MemoryOwners, share_out

__all__ = ["ModelMemory", "OwnedMemory"]


@dataclass(frozen=True)
class ModelMemory:
    """What a loaded model has on a device. `kv_bytes` are those of the cache that take memory: all of it on a GPU, on a
    CPU what was filled once. `activation_bytes` are the most that steps took, where the allocator cannot tell."""

    weight_bytes: int = 0
    kv_bytes: int = 0
    activation_bytes: int = 0


class OwnedMemory:
    """`model` gives what is loaded now, None for nothing. Its series are named `<device>_<owner>_bytes`."""

    def __init__(self, device: UsageReader, model: Callable[[], ModelMemory | None]) -> None:
        self._device = device
        self._model = model

    def owners(self) -> MemoryOwners:
        """By owner, now; they add up to what the device says is in use."""
        usage = self._device.read_usage()
        model = self._model() or ModelMemory()
        known = model.weight_bytes + model.kv_bytes + model.activation_bytes
        return share_out(
            used_bytes=usage.used,
            process_bytes=usage.process,
            weight_bytes=model.weight_bytes,
            kv_bytes=model.kv_bytes,
            allocated_bytes=usage.allocated or known,
            allocated_peak_bytes=usage.allocated_peak or known,
            reserved_bytes=usage.reserved or known,
        )

    def read(self) -> Mapping[str, float]:
        """The same for a sampler."""
        name = self._device.name
        return {f"{name}_{owner}_bytes": float(size) for owner, size in self.owners().to_dict().items()}
