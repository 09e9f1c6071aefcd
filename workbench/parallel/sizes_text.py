"""Several devices as a word of a command line: `data=2`, or `tensor=2,pipeline=1,data=2`. Starts nothing."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.parallel.config import GPUConfig
from workbench.parallel.strategy import ParallelismStrategy

__all__ = ["config_from_text", "config_to_text"]

_NAMES = ("tensor", "pipeline", "data")
# Python refuses to read far longer numbers with an error of its own.
_MOST_DIGITS = 12


def config_from_text(text: str) -> GPUConfig:
    """The first so many devices, spread so: one size is that strategy, several are "hybrid". Raises ConfigError."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if name not in _NAMES or name in sizes:
            raise ConfigError(f"parallel={text!r}: {name!r} must be one of {', '.join(_NAMES)}, each at most once")
        if not (size.isascii() and size.isdigit()) or len(size) > _MOST_DIGITS or int(size) < 1:
            raise ConfigError(f"parallel={text!r}: {size!r} is not a whole number of at least 1, as in tensor=2,data=2")
        sizes[name] = int(size)
    if len(sizes) == 1:
        ((strategy, num_gpus),) = sizes.items()
        return GPUConfig(num_gpus=num_gpus, strategy=strategy)
    tensor, pipeline, data = (sizes.get(name, 1) for name in _NAMES)
    return GPUConfig(
        num_gpus=tensor * pipeline * data,
        strategy=ParallelismStrategy.HYBRID,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        data_parallel_size=data,
    )


def config_to_text(config: GPUConfig) -> str:
    """What `config_from_text` reads. Raises ConfigError for what it has no words for: which GPUs, how balanced."""
    if config.strategy is ParallelismStrategy.HYBRID:
        shape = config.shape
        text = ",".join(f"{name}={getattr(shape, name)}" for name in _NAMES)
    else:
        text = f"{config.strategy.value}={config.num_gpus}"
    if config_from_text(text) != config:
        raise ConfigError("a command line takes the first GPUs with default balancing only; use the code cell")
    return text
