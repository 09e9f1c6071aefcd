"""`GPUConfig`: which GPUs, split how, balanced how. Checks itself only; whether the GPUs exist is asked elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from workbench.errors import ConfigError
from workbench.parallel.balancers import parse_balancer
from workbench.parallel.strategy import ParallelismStrategy, parse_strategy

__all__ = ["GPUConfig", "ParallelShape"]

_T = TypeVar("_T")

# Far more than there are; a list of them is still made at once.
_MOST_GPUS = 65_536

# What the documented names mean for a size that the strategy does not use.
_DOCUMENTED_SIZES = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 1}
_USUAL_FRACTION = 0.9
_USED_SIZES = {
    ParallelismStrategy.TENSOR: ("tensor_parallel_size",),
    ParallelismStrategy.PIPELINE: ("pipeline_parallel_size",),
    ParallelismStrategy.DATA: ("data_parallel_size",),
    ParallelismStrategy.HYBRID: tuple(_DOCUMENTED_SIZES),
}


@dataclass(frozen=True)
class ParallelShape:
    """What the strategy makes of the GPUs: `data` replicas of `pipeline` stages of `tensor` ranks."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether each replica is the whole model on one device."""
        return self.tensor == self.pipeline == 1


@dataclass(frozen=True, init=False)
class GPUConfig:
    """Settings for several GPUs.

    Args:
        gpu_ids: indexes as torch numbers them, or UUIDs. Or give `num_gpus` for the first so many.
        strategy: a ParallelismStrategy or its name, "tensor" or "tensor_parallel".
        tensor_parallel_size, pipeline_parallel_size, data_parallel_size: those that the strategy uses must multiply to
            the number of GPUs; left out they are chosen so. One that the strategy does not use has no effect, also not
            on whether two configs are equal.
        memory_fraction: share of each GPU's memory that an engine may take, above 0 and at most 1. Left at 0.9, that of
            `EngineConfig` counts.
        load_balancing: "round_robin", "least_loaded", "adaptive" or "prefix_affinity".
        num_gpus, load_balancer, stages: other names of len(gpu_ids), load_balancing and pipeline_parallel_size.

    Raises ConfigError that names the field, the value and what is allowed.
    """

    gpu_ids: list[int | str]
    strategy: ParallelismStrategy
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    memory_fraction: float
    load_balancing: str

    def __init__(
        self,
        gpu_ids: Sequence[int | str] | None = None,
        strategy: ParallelismStrategy | str = ParallelismStrategy.TENSOR,
        tensor_parallel_size: int | None = None,
        pipeline_parallel_size: int | None = None,
        data_parallel_size: int | None = None,
        memory_fraction: float = _USUAL_FRACTION,
        load_balancing: str | None = None,
        *,
        num_gpus: int | None = None,
        load_balancer: str | None = None,
        stages: int | None = None,
    ) -> None:
        ids = _gpu_ids(gpu_ids, num_gpus)
        strategy = parse_strategy(strategy)
        pipeline_size = _one_of("pipeline_parallel_size", pipeline_parallel_size, "stages", stages)
        sizes = _sizes(strategy, len(ids), (tensor_parallel_size, pipeline_size, data_parallel_size))
        values = {
            "gpu_ids": ids,
            "strategy": strategy,
            **sizes,
            "memory_fraction": _fraction(memory_fraction),
            "load_balancing": _balancing(load_balancing, load_balancer),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def num_gpus(self) -> int:
        """How many GPUs are named."""
        return len(self.gpu_ids)

    @property
    def load_balancer(self) -> str:
        """The same as `load_balancing`."""
        return self.load_balancing

    @property
    def stages(self) -> int:
        """The same as `pipeline_parallel_size`."""
        return self.pipeline_parallel_size

    @property
    def shape(self) -> ParallelShape:
        """The sizes that the strategy uses, 1 for the others; they multiply to the number of GPUs."""
        used = _USED_SIZES[self.strategy]
        return ParallelShape(*(getattr(self, name) if name in used else 1 for name in _DOCUMENTED_SIZES))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GPUConfig) and self._effect() == other._effect()

    def with_fraction(self, memory_fraction: float) -> GPUConfig:
        """The same, with what an engine's own settings say of its share of the memory where this one says nothing."""
        if self.memory_fraction != _USUAL_FRACTION or memory_fraction == _USUAL_FRACTION:
            return self
        return replace(self, memory_fraction=memory_fraction)

    def _effect(self) -> tuple[object, ...]:
        return self.gpu_ids, self.strategy, self.shape, self.memory_fraction, self.load_balancing

    def on(self, gpu_ids: Iterable[int | str]) -> GPUConfig:
        """The same for other GPUs, with sizes that fit them."""
        return GPUConfig(
            list(gpu_ids),
            self.strategy,
            memory_fraction=self.memory_fraction,
            load_balancing=self.load_balancing,
        )


def _gpu_ids(gpu_ids: Sequence[int | str] | None, num_gpus: int | None) -> list[int | str]:
    if num_gpus is not None and (type(num_gpus) is not int or num_gpus < 1):
        raise ConfigError(f"num_gpus={num_gpus!r}: must be an integer of at least 1")
    if num_gpus is not None and num_gpus > _MOST_GPUS:
        raise ConfigError(f"num_gpus={num_gpus}: must be at most {_MOST_GPUS:,}")
    if gpu_ids is None:
        if num_gpus is None:
            raise ConfigError("gpu_ids is missing: give a list such as [0, 1], or num_gpus")
        return list(range(num_gpus))
    if isinstance(gpu_ids, str) or not isinstance(gpu_ids, Iterable):
        raise ConfigError(f"gpu_ids={gpu_ids!r}: must be a list of indexes or UUIDs")
    ids = list(gpu_ids)
    if not ids:
        raise ConfigError("gpu_ids=[]: must name at least one GPU")
    wrong = [i for i in ids if not (type(i) is int and i >= 0) and not (isinstance(i, str) and i.strip())]
    if wrong:
        raise ConfigError(f"gpu_ids={ids!r}: {wrong[0]!r} is neither an index of at least 0 nor a UUID")
    if len(set(ids)) != len(ids):
        raise ConfigError(f"gpu_ids={ids!r}: each GPU can be named once")
    if num_gpus not in (None, len(ids)):
        raise ConfigError(f"num_gpus={num_gpus}: gpu_ids names {len(ids)}; give one of the two")
    return ids


def _sizes(strategy: ParallelismStrategy, num_gpus: int, given: tuple[int | None, ...]) -> dict[str, int]:
    """All three sizes. Of those that are used and not given, the last takes what the others leave."""
    sizes = dict(zip(_DOCUMENTED_SIZES, given, strict=True))
    for name, size in sizes.items():
        if size is not None and (type(size) is not int or size < 1):
            raise ConfigError(f"{name}={size!r}: must be an integer of at least 1")
    used = _USED_SIZES[strategy]
    taken = math.prod(sizes[name] or 1 for name in used)
    open_names = [name for name in used if sizes[name] is None]
    if num_gpus % taken or (not open_names and taken != num_gpus):
        raise ConfigError(_misfit(strategy, num_gpus, {name: size for name in used if (size := sizes[name])}))
    rest = num_gpus // taken
    for name in open_names[:-1]:
        share = 2 if rest % 2 == 0 else 1
        sizes[name] = share
        rest //= share
    if open_names:
        sizes[open_names[-1]] = rest
    return {name: _DOCUMENTED_SIZES[name] if size is None else size for name, size in sizes.items()}


def _misfit(strategy: ParallelismStrategy, num_gpus: int, used: dict[str, int]) -> str:
    shown = ", ".join(f"{name}={size}" for name, size in used.items())
    uses = math.prod(used.values())
    is_hybrid = strategy is ParallelismStrategy.HYBRID
    advice = f"sizes that multiply to {num_gpus}" if is_hybrid else f"{next(iter(used))}={num_gpus}"
    hint = " ('hybrid' runs several such groups)" if uses < num_gpus and not is_hybrid else ""
    return f"{shown}: strategy {strategy.value!r} uses {uses} of {num_gpus} gpu_ids so; must be {advice}{hint}"


def _fraction(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(f"memory_fraction={value!r}: must be above 0 and at most 1")
    return value


def _balancing(load_balancing: str | None, load_balancer: str | None) -> str:
    names = {
        field: None if value is None else parse_balancer(value, field)
        for field, value in (("load_balancing", load_balancing), ("load_balancer", load_balancer))
    }
    return _one_of("load_balancing", names["load_balancing"], "load_balancer", names["load_balancer"]) or "round_robin"


def _one_of(name: str, value: _T | None, alias: str, alias_value: _T | None) -> _T | None:
    if value is not None and alias_value is not None and value != alias_value:
        raise ConfigError(
            f"{alias}={alias_value!r}: is another name of {name}, which is {value!r}; give one of the two"
        )
    return alias_value if value is None else value
