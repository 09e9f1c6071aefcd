"""The ways to use several GPUs, by name."""

from __future__ import annotations

import enum

from workbench.errors import ConfigError

__all__ = ["ParallelismStrategy", "parse_strategy"]


class ParallelismStrategy(enum.Enum):
    """TENSOR splits every layer, PIPELINE deals the layers out, DATA runs whole copies, HYBRID does all three."""

    TENSOR = "tensor"
    PIPELINE = "pipeline"
    DATA = "data"
    HYBRID = "hybrid"


def parse_strategy(name: object) -> ParallelismStrategy:
    """The strategy for a member, "tensor" or "tensor_parallel", in any case. Raises ConfigError listing the names."""
    text = str(getattr(name, "value", name)).strip().lower().replace("-", "_")
    try:
        return ParallelismStrategy(text.removesuffix("_parallel"))
    except ValueError:
        names = ", ".join(member.value for member in ParallelismStrategy)
        raise ConfigError(f"strategy={name!r}: must be one of {names}, or the same with '_parallel'") from None
