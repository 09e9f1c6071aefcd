"""Holds a `GPUConfig` against the machine: which of the named GPUs are there, and what to use instead if told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.backends import Backend, BackendStatus, DeviceInfo, detect
from workbench.errors import GPUUnavailableError
from workbench.parallel.config import GPUConfig

__all__ = ["DeviceChoice", "choose_devices"]

_GIB = 1024**3


@dataclass(frozen=True)
class DeviceChoice:
    """Devices to use. `devices` is by the id of the config; on the CPU, which stands in for no GPU at all, empty.

    `config` is fitted to what is there. `degraded_reason` says in words what was asked and is not there, None if all
    is.
    """

    backend: Backend
    devices: dict[int | str, DeviceInfo]
    config: GPUConfig
    degraded_reason: str | None = None

    @property
    def gpu_ids(self) -> list[int | str]:
        """The ids of the config that are there, in its order."""
        return list(self.devices)


def choose_devices(
    config: GPUConfig, *, degrade: bool = False, backends: Sequence[Backend] | None = None
) -> DeviceChoice:
    """Look what is there now, on the first backend with GPUs.

    Raises GPUUnavailableError that lists what is there if any named GPU is not; with `degrade`, takes those that are
    there, or the CPU.
    """
    statuses = detect(backends)
    status = next((s for s in statuses if s.available and s.backend.device_type != "cpu"), None)
    found = {} if status is None else _find(config.gpu_ids, status.devices)
    if status is not None and len(found) == config.num_gpus:
        return DeviceChoice(status.backend, found, config)
    missing = [gpu_id for gpu_id in config.gpu_ids if gpu_id not in found]
    reason = f"gpu_ids={config.gpu_ids}: {missing} cannot be used; there is {_inventory(statuses)}"
    if not degrade:
        raise GPUUnavailableError(f"{reason}. Name only GPUs that are there (in Python, degrade=True does)")
    if status is not None and found:
        return DeviceChoice(status.backend, found, config.on(found), f"{reason}; using {list(found)}")
    cpu = next((s.backend for s in statuses if s.available and s.backend.device_type == "cpu"), None)
    if cpu is None:
        raise GPUUnavailableError(reason)
    return DeviceChoice(cpu, {}, config, f"{reason}; using the CPU")


def _find(gpu_ids: Sequence[int | str], devices: Sequence[DeviceInfo]) -> dict[int | str, DeviceInfo]:
    by_name = {_bare(device.uuid): device for device in devices if device.uuid}
    by_name.update({device.index: device for device in devices})
    found: dict[int | str, DeviceInfo] = {}
    for gpu_id in gpu_ids:
        device = by_name.get(_bare(gpu_id))
        # An index and a UUID can name the same GPU: it is there once.
        if device is not None and device not in found.values():
            found[gpu_id] = device
    return found


def _bare(gpu_id: int | str) -> int | str:
    """A UUID as torch gives it; the driver's tools write "GPU-" before it."""
    return gpu_id.strip().lower().removeprefix("gpu-") if isinstance(gpu_id, str) else gpu_id


def _inventory(statuses: Sequence[BackendStatus]) -> str:
    return "; ".join(f"{status.name}: {_in_words(status)}" for status in statuses)


def _in_words(status: BackendStatus) -> str:
    if not status.available:
        return f"none ({status.reason})"
    return ", ".join(f"{d.index} = {d.name}, {d.total_bytes / _GIB:.0f} GiB" for d in status.devices)
