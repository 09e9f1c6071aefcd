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
_LEAST_SHARE = 0.01
# A layer is bad when its error is this many times the median, and at most this share of the weights is kept.
_BAD_RATIO = 1.5
_KEPT_SHARE = 0.05
# An output this near to the original's is good enough, however much better the other layers are.
_GOOD_ERROR = 0.02


class LayerInputs:
    """What went into each layer when the model read sample texts: some rows, and each column's mean square over all."""

    def __init__(self, rows: dict[str, torch.Tensor], squares: dict[str, torch.Tensor], counts: dict[str, int]) -> None:
        self._rows = rows
        self._squares = squares
        self._counts = counts

    @classmethod
    def unknown(cls) -> LayerInputs:
        """Of a model that read nothing."""
        return cls({}, {}, {})

    @classmethod
    def record(cls, model: nn.Module, names: Sequence[str], samples: Sequence[torch.Tensor]) -> LayerInputs:
        """Run `model` on `samples` (token ids [1, tokens]) and keep what the layers `names` were given."""
        rows: dict[str, torch.Tensor] = {}
        squares: dict[str, torch.Tensor] = {}
        counts: dict[str, int] = {}

        def keep(name: str, given: torch.Tensor) -> None:
            flat = given.detach().reshape(-1, given.shape[-1])
            step = max(1, flat.shape[0] // _NUM_ROWS)
            rows.setdefault(name, flat[::step][:_NUM_ROWS].clone())
            sums = flat.float().square().sum(0)
            squares[name] = squares[name] + sums if name in squares else sums
            counts[name] = counts.get(name, 0) + flat.shape[0]

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
        return cls(rows, squares, counts)

    def mean_square(self, name: str) -> torch.Tensor | None:
        """Mean square of each input column [in] of a layer; None for a layer that saw none.

        Held above a hundredth of their mean: a column that counts next to nothing here may count elsewhere.
        """
        if name not in self._squares:
            return None
        mean = self._squares[name] / self._counts[name]
        return mean.clamp_min(float(mean.mean()) * _LEAST_SHARE)

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


def pick_worst(
    errors: Mapping[str, float], sizes: Mapping[str, int], *, ratio: float = _BAD_RATIO, share: float = _KEPT_SHARE
) -> frozenset[str]:
    """The layers to keep: worst first, those above `ratio` times the median error, at most `share` of all weights."""
    if not errors:
        return frozenset()
    limit = max(_GOOD_ERROR, ratio * statistics.median(errors.values()))
    room = share * sum(sizes.values())
    kept = set()
    for name in sorted(errors, key=errors.__getitem__, reverse=True):
        if errors[name] <= limit:
            break
        if sizes[name] <= room:
            kept.add(name)
            room -= sizes[name]
    return frozenset(kept)
