"""Where a rank stands among the others, and which share of layers, heads and rows is its own. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.parallel.head_shares import tensor_sizes

__all__ = ["Place", "check_tensor_size", "layer_spans", "share", "tensor_sizes"]


@dataclass(frozen=True)
class Place:
    """A rank among `num_stages` stages of `tensor_size` ranks each; counted from 0."""

    stage: int
    num_stages: int
    tensor_rank: int
    tensor_size: int

    @property
    def rank(self) -> int:
        """Its number among all."""
        return self.stage * self.tensor_size + self.tensor_rank

    @property
    def name(self) -> str:
        """Its number among all, and where that is, in words."""
        parts = []
        if self.num_stages > 1:
            parts.append(f"stage {self.stage} of {self.num_stages}")
        if parts and self.tensor_size > 1:
            parts.append(f"tensor rank {self.tensor_rank} of {self.tensor_size}")
        words = f"rank {self.rank} of {self.num_stages * self.tensor_size}"
        return f"{words} ({', '.join(parts)})" if parts else words

    @property
    def is_first_stage(self) -> bool:
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        return self.stage == self.num_stages - 1

    @classmethod
    def all(cls, num_stages: int, tensor_size: int) -> list[Place]:
        """Every rank's, in the order of their numbers."""
        return [cls(s, num_stages, t, tensor_size) for s in range(num_stages) for t in range(tensor_size)]


def share(total: int, index: int, count: int) -> range:
    """The `index`-th of `count` nearly equal pieces of `total`."""
    return range(total * index // count, total * (index + 1) // count)


def check_tensor_size(name: str, num_heads: int, num_kv_heads: int, size: int) -> None:
    """Raise ConfigError listing the sizes that are possible unless this one is."""
    sizes = tensor_sizes(num_heads, num_kv_heads)
    if size not in sizes:
        raise ConfigError(
            f"tensor_parallel_size={size}: {name} has {num_heads} attention heads and {num_kv_heads} KV heads, which "
            f"do not divide so; must be one of {', '.join(map(str, sizes))}"
        )


def layer_spans(costs: Sequence[float], num_stages: int, *, last_cost: float = 0.0) -> list[range]:
    """Consecutive layers for each stage, such that the dearest stage is as cheap as can be.

    `costs` are the layers', in any unit; `last_cost` is what the last stage does besides (the head). Raises
    ConfigError for more stages than layers.
    """
    num_layers = len(costs)
    if not 1 <= num_stages <= num_layers:
        raise ConfigError(f"pipeline_parallel_size={num_stages}: must be from 1 to {num_layers}, the number of layers")
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    # best[i] is the dearest of the stages that hold the layers from i on, and where the first of them ends.
    best = {i: (sums[-1] - sums[i] + last_cost, num_layers) for i in range(num_layers)}
    choices = [best]
    for stages_after in range(1, num_stages):
        best = {
            i: min((max(sums[end] - sums[i], best[end][0]), end) for end in range(i + 1, num_layers - stages_after + 1))
            for i in range(num_layers - stages_after)
        }
        choices.append(best)
    spans, start = [], 0
    for best in reversed(choices):
        end = best[start][1]
        spans.append(range(start, end))
        start = end
    return spans
