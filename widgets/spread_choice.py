"""How a model is spread over several devices, as pickers hold it. Pure; knows no widget and no device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import ConfigError
from workbench.parallel import GPUConfig, ParallelismStrategy

__all__ = ["SIZE_FIELDS", "SpreadChoice"]

# Field of a picker -> keyword of GPUConfig.
SIZE_FIELDS = {f"{name}_size": f"{name}_parallel_size" for name in ("tensor", "pipeline", "data")}
_FEWEST = 2


@dataclass(frozen=True)
class SpreadChoice:
    """A strategy with its sizes by field name, and what a GPUConfig has beside them. No `devices`: the first ones."""

    strategy: ParallelismStrategy
    sizes: Mapping[str, int]
    devices: tuple[int | str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: GPUConfig) -> SpreadChoice:
        """What a config says."""
        shape = config.shape
        sizes = {name: getattr(shape, name.removesuffix("_size")) for name in fields_of(config.strategy)}
        is_first = config.gpu_ids == list(range(config.num_gpus))
        more = {"memory_fraction": config.memory_fraction, "load_balancing": config.load_balancing}
        return cls(config.strategy, sizes, () if is_first else tuple(config.gpu_ids), more)

    @classmethod
    def first(cls, strategy: ParallelismStrategy, count: int, devices: Sequence[int] = ()) -> SpreadChoice:
        """The strategy with sizes to begin with, on `count` devices."""
        if strategy is ParallelismStrategy.HYBRID:
            return cls(strategy, {"tensor_size": 1, "pipeline_size": 2, "data_size": 2})
        (name,) = fields_of(strategy)
        return cls(strategy, {name: max(count, _FEWEST)}, tuple(devices) if len(devices) == count else ())

    @property
    def num_devices(self) -> int:
        """How many devices it takes."""
        return math.prod(self.sizes.values())

    def resized(self, name: str, size: Any) -> SpreadChoice:
        """Another size. Raises ConfigError for one that the strategy does not have."""
        if name not in self.sizes:
            raise ConfigError(f"{name}: {self.strategy.value} has {', '.join(self.sizes)} only")
        if type(size) is not int or size < 1:
            raise ConfigError(f"{name}={size!r}: must be a whole number of at least 1")
        return SpreadChoice(self.strategy, {**self.sizes, name: size}, (), self.more)

    def on(self, devices: Sequence[int]) -> SpreadChoice:
        """The same on those devices. Raises ConfigError where the sizes would have to be chosen by hand."""
        if len(devices) == self.num_devices:
            return SpreadChoice(self.strategy, self.sizes, tuple(devices), self.more)
        if self.strategy is ParallelismStrategy.HYBRID:
            raise ConfigError(f"the sizes multiply to {self.num_devices}, and {len(devices)} GPUs are chosen")
        return SpreadChoice.first(self.strategy, len(devices), devices)

    def config(self) -> GPUConfig:
        """The same as `LlamaGPU(parallel=...)` takes it."""
        devices = list(self.devices or range(self.num_devices))
        is_hybrid = self.strategy is ParallelismStrategy.HYBRID
        sizes = {SIZE_FIELDS[name]: size for name, size in self.sizes.items()} if is_hybrid else {}
        return GPUConfig(devices, self.strategy, **sizes, **self.more)


def fields_of(strategy: ParallelismStrategy) -> tuple[str, ...]:
    """The sizes that a strategy has."""
    return tuple(SIZE_FIELDS) if strategy is ParallelismStrategy.HYBRID else (f"{strategy.value}_size",)
