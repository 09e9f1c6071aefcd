"""Several devices as a word of a command line: `tensor=2,data=2`, or `data=2,balancing=adaptive`. Starts nothing."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.parallel.balancers import parse_balancer
from workbench.parallel.config import GPUConfig
from workbench.parallel.strategy import ParallelismStrategy

__all__ = ["config_from_text", "config_to_text"]

_NAMES = ("tensor", "pipeline", "data")
_BALANCING, _USUAL_BALANCING = "balancing", "round_robin"
# Python refuses to read far longer numbers with an error of its own.
_MOST_DIGITS = 12


def config_from_text(text: str) -> GPUConfig:
    """The first so many devices, spread and balanced so: one size is that strategy, several are "hybrid".

    Raises ConfigError.
    """
    sizes: dict[str, int] = {}
    balancing: str | None = None
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if name == _BALANCING and balancing is None:
            balancing = parse_balancer(size, f"parallel={text!r}: {_BALANCING}")
            continue
        if name not in _NAMES or name in sizes:
            names = ", ".join((*_NAMES, _BALANCING))
            raise ConfigError(f"parallel={text!r}: {name!r} must be one of {names}, each at most once")
        if not (size.isascii() and size.isdigit()) or len(size) > _MOST_DIGITS or int(size) < 1:
            raise ConfigError(f"parallel={text!r}: {size!r} is not a whole number of at least 1, as in tensor=2,data=2")
        sizes[name] = int(size)
    if not sizes:
        raise ConfigError(f"parallel={text!r}: over how many devices is missing, as in data=2,{text.strip()}")
    if len(sizes) == 1:
        ((strategy, num_gpus),) = sizes.items()
        return GPUConfig(num_gpus=num_gpus, strategy=strategy, load_balancing=balancing)
    tensor, pipeline, data = (sizes.get(name, 1) for name in _NAMES)
    return GPUConfig(
        num_gpus=tensor * pipeline * data,
        strategy=ParallelismStrategy.HYBRID,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        data_parallel_size=data,
        load_balancing=balancing,
    )


def config_to_text(config: GPUConfig) -> str:
    """What `config_from_text` reads. Raises ConfigError for what it has no words for: which GPUs, and their share."""
    if config.strategy is ParallelismStrategy.HYBRID:
        shape = config.shape
        text = ",".join(f"{name}={getattr(shape, name)}" for name in _NAMES)
    else:
        text = f"{config.strategy.value}={config.num_gpus}"
    if config.load_balancing != _USUAL_BALANCING:
        text += f",{_BALANCING}={config.load_balancing}"
    if config_from_text(text) != config:
        raise ConfigError("a command line takes the first GPUs with the usual share of them only; use the code cell")
    return text
