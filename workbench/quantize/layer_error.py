"""How far a quantised layer's output is from the original's, on the inputs that the layer really sees."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["LayerInputs", "pick_worst", "relative_error"]

# Input rows looked at per layer: enough to tell layers apart, little beside the weights.
_NUM_ROWS = 32
# A layer is bad when its error is this many times the median, and at most this share of the weights is kept.
_BAD_RATIO = 1.5
_KEPT_SHARE = 0.05


class LayerInputs:
    """Some rows that went into each layer when the model read sample texts."""

    def __init__(self, rows: dict[str, torch.Tensor]) -> None:
        self._rows = rows

    @classmethod
    def record(cls, model: nn.Module, names: Sequence[str], samples: Sequence[torch.Tensor]) -> LayerInputs:
        """Run `model` on `samples` (token ids [1, tokens]) and keep what the layers `names` were given."""
        rows: dict[str, torch.Tensor] = {}

        def keep(name: str, given: torch.Tensor) -> None:
            flat = given.detach().reshape(-1, given.shape[-1])
            step = max(1, flat.shape[0] // _NUM_ROWS)
            rows.setdefault(name, flat[::step][:_NUM_ROWS].clone())

        hooks = [
            model.get_submodule(name).register_forward_pre_hook(lambda _, given, name=name: keep(name, given[0]))
            for name in names
        ]
        try:
            with torch.inference_mode():
                for sample in samples:
                    model(sample)
        finally:
            for hook in hooks:
                hook.remove()
        return cls(rows)

    def rows(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Inputs [rows, in] of a layer; random ones, always the same, for a layer that saw none."""
        if name in self._rows:
            return self._rows[name]
        generator = torch.Generator().manual_seed(0)
        return torch.randn(_NUM_ROWS, weight.shape[1], generator=generator).to(weight)


def relative_error(quantized: nn.Module, weight: torch.Tensor, rows: torch.Tensor) -> float:
    """Norm of the output's difference over the norm of the output, for inputs `rows` [rows, in]."""
    with torch.inference_mode():
        exact = functional.linear(rows, weight).float()
        difference = quantized(rows).float() - exact
        return float(difference.norm() / exact.norm().clamp_min(torch.finfo(torch.float32).tiny))


def pick_worst(errors: Mapping[str, float], sizes: Mapping[str, int]) -> frozenset[str]:
    """The layers to keep: from the worst on, those well above the median error, while they are a small share."""
    if not errors:
        return frozenset()
    limit = _BAD_RATIO * statistics.median(errors.values())
    room = _KEPT_SHARE * sum(sizes.values())
    kept = set()
    for name in sorted(errors, key=errors.get, reverse=True):
        if errors[name] <= limit:
            break
        if sizes[name] <= room:
            kept.add(name)
            room -= sizes[name]
    return frozenset(kept)
