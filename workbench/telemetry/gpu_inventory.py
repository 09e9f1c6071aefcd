"""All GPUs of this machine, with their owners and links: what torch can use here, and what only the driver sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.backends import BackendStatus, DeviceInfo, detect
from workbench.telemetry.gpu_topology import DriverGPU, GPULink, GPUProcess, read_driver_gpus, read_links

__all__ = ["GPUInventory", "ListedGPU", "read_gpu_inventory"]


@dataclass(frozen=True)
class ListedGPU:
    """One GPU.

    `name` is what to ask for here ("cuda:0", as torch numbers them), None for one that cannot be used here.
    `driver_index` is the driver's own number, None where the driver does not know it. `processes` is None where nobody
    says who is on it.
    """

    name: str | None
    driver_index: int | None
    model: str
    uuid: str | None
    total_bytes: int
    free_bytes: int
    processes: tuple[GPUProcess, ...] | None

    @property
    def label(self) -> str:
        """What to call it in a list."""
        return self.name or f"driver's {self.driver_index}"


@dataclass(frozen=True)
class GPUInventory:
    """`links` are between the driver's indexes. `reasons` say in words what cannot be used or is not known."""

    gpus: tuple[ListedGPU, ...]
    links: tuple[GPULink, ...]
    reasons: tuple[str, ...]

    def link(self, first: ListedGPU, second: ListedGPU) -> GPULink | None:
        """How two of them reach each other, None where nobody says."""
        wanted = {first.driver_index, second.driver_index}
        return next((link for link in self.links if {link.first, link.second} == wanted), None)


def read_gpu_inventory(statuses: Sequence[BackendStatus] | None = None, driver: Any = None) -> GPUInventory:
    """Look now. `statuses` are the backends (None: looked up), `driver` a pynvml-like module (None: pynvml).

    A machine without GPUs or without a driver is no error: `reasons` say so.
    """
    statuses = detect() if statuses is None else statuses
    gpu_statuses = [status for status in statuses if status.backend.device_type != "cpu"]
    reasons = [f"{status.name}: {status.reason}" for status in gpu_statuses if not status.available]
    try:
        known, links = _ask_driver(driver)
    # The driver's errors share no base that can be named before pynvml is imported.
    except Exception as error:
        known, links = [], []
        reasons.append(f"NVIDIA driver: {error}")
    unlisted = {_bare(gpu.uuid): gpu for gpu in known}
    usable = [
        _usable(f"{status.name}:{device.index}", device, unlisted.pop(_bare(device.uuid), None))
        for status in gpu_statuses
        if status.available
        for device in status.devices
    ]
    others = [_not_usable(gpu) for gpu in unlisted.values()]
    if others:
        reasons.append("GPUs without a name are the driver's, and hidden from torch here or not for its build")
    if any(gpu.processes is None for gpu in usable):
        reasons.append("who is on a GPU, and how it is linked, is read from NVIDIA's driver only")
    return GPUInventory((*usable, *others), tuple(links), tuple(reasons))


def _ask_driver(driver: Any) -> tuple[list[DriverGPU], list[GPULink]]:
    if driver is None:
        import pynvml

        driver = pynvml
    driver.nvmlInit()
    try:
        return read_driver_gpus(driver), read_links(driver)
    finally:
        driver.nvmlShutdown()


def _usable(name: str, device: DeviceInfo, gpu: DriverGPU | None) -> ListedGPU:
    return ListedGPU(
        name=name,
        driver_index=None if gpu is None else gpu.index,
        model=device.name,
        uuid=device.uuid if gpu is None else gpu.uuid,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        processes=None if gpu is None else gpu.processes,
    )


def _not_usable(gpu: DriverGPU) -> ListedGPU:
    return ListedGPU(None, gpu.index, gpu.model, gpu.uuid, gpu.total_bytes, gpu.free_bytes, gpu.processes)


def _bare(uuid: str | None) -> str | None:
    """torch writes the bare UUID, the driver "GPU-" before it."""
    return None if uuid is None else uuid.lower().removeprefix("gpu-")
