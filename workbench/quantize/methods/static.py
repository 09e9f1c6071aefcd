"""int8 weights and activations, the ranges of these learnt from texts beforehand: one scale a layer, no work a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from workbench.errors import ConfigError
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layer_error import pick_worst
from workbench.quantize.methods.base import Method
from workbench.quantize.methods.dynamic import multiply_int8
from workbench.quantize.methods.int8 import Int8Linear, Int8Weight
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.weight_use import WeightUse

__all__ = ["StaticInt8", "StaticInt8Linear", "StaticInt8Weight"]

_LEVELS = 255
_LOWEST, _HIGHEST = -128, 127
# A layer that keeps its activations takes no more memory, only time.
_KEPT_SHARE = 0.5


class StaticInt8Linear(Int8Linear):
    """The tensors of Int8Linear, and `activation` fp32 [2]: the scale and zero point of what comes in."""

    activation: torch.Tensor
    row_sums: torch.Tensor

    def __init__(self, weight: StaticInt8Weight, bias: torch.Tensor | None) -> None:
        super().__init__(weight.values, weight.scales, bias)
        self.register_buffer("activation", weight.activation)
        # What a zero point adds to each sum of products.
        self.register_buffer("row_sums", weight.values.sum(1, dtype=torch.int32), persistent=False)

    @property
    def packed_weight(self) -> PackedWeight:
        return StaticInt8Weight(self.values, self.scales, self.activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero = self.activation
        rows = x.reshape(-1, self.in_features).float()
        levels = (rows / scale + zero).round_().clamp_(_LOWEST, _HIGHEST).to(torch.int8)
        sums = multiply_int8(levels, self.values).float() - zero * self.row_sums
        out: torch.Tensor = sums.mul_(scale).mul_(self.scales.float())
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


@dataclass(frozen=True)
class StaticInt8Weight(Int8Weight):
    """Int8Weight with the range of the activations that meet it."""

    kind: ClassVar[str] = "static"

    activation: torch.Tensor

    def linear(self, bias: torch.Tensor | None) -> nn.Module:
        """See PackedWeight."""
        return StaticInt8Linear(self, bias)

    def tensors(self) -> dict[str, torch.Tensor]:
        """See PackedWeight."""
        return {**super().tensors(), "activation": self.activation}

    @classmethod
    def from_file(
        cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, int | bool], device: str
    ) -> StaticInt8Weight:
        """See PackedWeight."""
        return cls(tensors["values"].to(device), tensors["scales"].to(device), tensors["activation"].to(device))


class StaticInt8(Method):
    """Packs weights as int8, runs the model on the texts, then sets each layer's range.

    With `preserve_accuracy`, layers that lose most by it keep their activations as they are.
    """

    needs_samples = True

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight:
        return Int8Weight.pack(weight, config)

    def finish(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """Calibrate. Raises ConfigError without samples."""
        if not samples:
            raise ConfigError(
                "quantization_type='static' is calibrated on texts and there are none: give prompts (texts with a "
                "tokenizer, or token ids), or use 'dynamic', which needs none"
            )
        layers = {name: module for name, module in model.named_modules() if type(module) is Int8Linear}
        ranges = _run(model, layers, samples, lambda name: _Range())
        static = {
            name: StaticInt8Linear(
                StaticInt8Weight(layer.values, layer.scales, ranges[name].activation(config, layer.values.device)),
                layer.bias,
            )
            for name, layer in layers.items()
            if name in ranges
        }
        kept = _worst(model, layers, static, samples) if config.preserve_accuracy else frozenset()
        for name, layer in static.items():
            if name not in kept:
                model.set_submodule(name, layer)
        return tuple(sorted(kept))


class _Range:
    """Least and greatest number that came into a layer."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0

    def see(self, given: torch.Tensor) -> None:
        low, high = given.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))

    def activation(self, config: QuantizationConfig, device: torch.device) -> torch.Tensor:
        if config.symmetric:
            scale, zero = max(-self.low, self.high) / _HIGHEST, 0.0
        else:
            scale = (self.high - self.low) / _LEVELS
            zero = _LOWEST - round(self.low / scale) if scale else 0.0
        return torch.tensor([scale or 1.0, zero], device=device)


class _Loss:
    """Squared error of a layer's calibrated twin, over the squared output."""

    def __init__(self, layer: Int8Linear, twin: StaticInt8Linear) -> None:
        self._layer, self._twin = layer, twin
        self._lost, self._total = 0.0, 0.0

    def see(self, given: torch.Tensor) -> None:
        exact = Int8Linear.forward(self._layer, given).float()
        self._lost += float((self._twin(given).float() - exact).square().sum())
        self._total += float(exact.square().sum())

    @property
    def relative(self) -> float:
        return (self._lost / self._total) ** 0.5 if self._total else 0.0


def _worst(
    model: nn.Module,
    layers: Mapping[str, Int8Linear],
    static: Mapping[str, StaticInt8Linear],
    samples: Sequence[torch.Tensor],
) -> frozenset[str]:
    calibrated = {name: layers[name] for name in static}
    losses = _run(model, calibrated, samples, lambda name: _Loss(layers[name], static[name]))
    sizes = {name: layers[name].values.numel() for name in losses}
    errors = {name: loss.relative for name, loss in losses.items()}
    return pick_worst(errors, sizes, ratio=1.0, share=_KEPT_SHARE)


def _run(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    samples: Sequence[torch.Tensor],
    make: Callable[[str], Any],
) -> dict[str, Any]:
    """Run the samples and show every layer's input to an observer of its own; those of layers that saw any."""
    seen: dict[str, Any] = {}

    def show(name: str, given: torch.Tensor) -> None:
        if name not in seen:
            seen[name] = make(name)
        seen[name].see(given)

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: show(name, given[0]))
        for name, layer in layers.items()
    ]
    try:
        with torch.inference_mode():
            for sample in samples:
                model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
