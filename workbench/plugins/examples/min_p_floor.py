"""A sampler: min-p whose share grows with the model's certainty, so that it cuts little where many tokens are good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.plugins import BasePlugin, LogitsProcessor, PluginMetadata, hookimpl

if TYPE_CHECKING:
    import torch

__all__ = ["MinPFloor", "plugin"]


class MinPFloor(LogitsProcessor):
    """min-p (Nguyen et al. 2024) keeps tokens with at least a share of the likeliest one's probability. Here the share
    is `min_p` times the likeliest one's probability to the power `certainty`: a sure model is cut sharply, an unsure
    one hardly; `certainty=0` is min-p itself.

    Options of a request: `min_p` (0 to 1, default 0.1), `certainty` (0 to 8, default 1), `keep` (at least so many
    tokens stay, default 1).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        unknown = sorted(set(options) - {"min_p", "certainty", "keep"})
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not known; there are min_p, certainty and keep")
        self._min_p = _number(options, "min_p", 0.1, 1.0)
        self._certainty = _number(options, "certainty", 1.0, 8.0)
        self._keep = int(_number(options, "keep", 1, 10_000)) or 1

    def process(self, logits: torch.Tensor, token_ids: Sequence[int], num_prompt_tokens: int) -> torch.Tensor:
        if self._min_p == 0:
            return logits
        log_probs = logits.log_softmax(dim=-1)
        largest = log_probs.max()
        # In logarithms: share of the likeliest = min_p * p_max ** certainty.
        floor = largest + math.log(self._min_p) + self._certainty * largest
        is_cut = log_probs < floor
        is_cut[logits.topk(min(self._keep, logits.shape[-1])).indices] = False
        return logits.masked_fill(is_cut, -math.inf)


def _number(options: Mapping[str, Any], name: str, default: float, high: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a number from 0 to {high:g}")
    return value


class MinPFloorPlugin(BasePlugin):
    metadata = PluginMetadata(
        name="min-p-floor",
        version="1.0.0",
        description="min-p that cuts more where the model is sure.",
        permissions=("samplers",),
    )

    @hookimpl
    def register_samplers(self, register: Any) -> None:
        register("min-p-floor", MinPFloor, "options: min_p, certainty, keep")


plugin = MinPFloorPlugin()
