"""Backends of machines that are not here: so many GPUs, or none and the reason why."""

from __future__ import annotations

from dataclasses import dataclass, field

from workbench.backends import DeviceInfo

GIB = 1024**3


@dataclass
class MachineBackend:
    """What device choice asks of a backend. `free_bytes` is per device and can be changed."""

    name: str
    device_type: str
    free_bytes: list[int] = field(default_factory=list)
    reason: str | None = None

    def unavailable_reason(self) -> str | None:
        return self.reason

    def devices(self) -> list[DeviceInfo]:
        return [
            DeviceInfo(index, f"{self.name} device", 80 * GIB, free, ("fp32",), None, 1, f"aaaa-{index}")
            for index, free in enumerate(self.free_bytes)
        ]

    def torch_device(self, index: int = 0) -> str:
        return f"{self.device_type}:{index}" if self.device_type != "cpu" else "cpu"


def machine(num_gpus: int) -> list[MachineBackend]:
    gpus = MachineBackend("cuda", "cuda", [60 * GIB] * num_gpus, None if num_gpus else "no driver")
    return [gpus, MachineBackend("cpu", "cpu", [GIB])]
