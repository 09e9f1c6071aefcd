"""On which devices of which backend a `GPUConfig` puts a model: GPUs, or the CPU in several processes."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.backends import Backend
from workbench.errors import ConfigError
from workbench.parallel.config import GPUConfig
from workbench.parallel.device_choice import choose_devices

__all__ = ["Spread", "choose_spread"]


@dataclass(frozen=True)
class Spread:
    """`device_indexes` are one per rank. `config` fits what is there; None: one process on the CPU is all there is."""

    backend: Backend
    device_indexes: tuple[int, ...]
    config: GPUConfig | None
    reason: str
    degraded_reason: str | None = None

    def first_device_index(self, requested: int) -> int:
        """The device that stands for all of them. Raises ConfigError if another was asked for beside `parallel`."""
        if requested != 0:
            raise ConfigError(f"device_index={requested}: with parallel, gpu_ids say which devices; leave it out")
        return self.device_indexes[0]


def choose_spread(
    config: GPUConfig, backend: Backend, requested: str | Backend | None, prefer_gpu: bool, degrade: bool
) -> Spread:
    """Look which of the config's GPUs are there. A CPU that was asked for takes as many processes as there are ids.

    `backend` is what would be used for one device, `requested` what the caller named. Raises ConfigError, and
    GPUUnavailableError that lists what is there unless `degrade`.
    """
    if not isinstance(config, GPUConfig):
        raise ConfigError(f"parallel={config!r}: must be a GPUConfig, such as GPUConfig(gpu_ids=[0, 1])")
    if backend.device_type == "cpu" and (requested is not None or not prefer_gpu):
        return Spread(backend, (0,) * config.num_gpus, config, "as asked")
    choice = choose_devices(config, degrade=degrade, backends=None if requested is None else [backend])
    if not choice.devices:
        return Spread(choice.backend, (0,), None, "no GPU is there", choice.degraded_reason)
    indexes = tuple(device.index for device in choice.devices.values())
    return Spread(choice.backend, indexes, choice.config, "parallel", choice.degraded_reason)
