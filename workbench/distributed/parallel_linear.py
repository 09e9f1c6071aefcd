"""`ParallelLinear`: one linear layer whose output features lie on several devices; for modules in this process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from workbench.distributed.place import share
from workbench.errors import ConfigError

__all__ = ["ParallelLinear", "split_linear_layers", "split_tensor"]


class ParallelLinear(nn.Module):
    """`layers[i]` computes its output features on `devices[i]`; together they give what the whole layer gives."""

    def __init__(self, layers: Sequence[nn.Linear], devices: Sequence[str]) -> None:
        super().__init__()
        if not layers or len(layers) != len(devices):
            raise ConfigError(f"layers: {len(layers)} for {len(devices)} devices; must be one for each, at least one")
        self.layers = nn.ModuleList(layer.to(device) for layer, device in zip(layers, devices, strict=True))
        self.devices = list(devices)
        self.in_features = layers[0].in_features
        self.out_features = sum(layer.out_features for layer in layers)

    @classmethod
    def split(cls, linear: nn.Linear, devices: Sequence[str]) -> ParallelLinear:
        """A layer's features dealt out over devices, as evenly as they go; its dtype is kept."""
        weights = split_tensor(linear.weight, len(devices))
        biases = [None] * len(devices) if linear.bias is None else split_tensor(linear.bias, len(devices))
        return cls([_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)], devices)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features], on the device of `x`."""
        # All are launched before the first is gathered, so that devices compute side by side.
        parts = [layer(x.to(device)) for layer, device in zip(self.layers, self.devices, strict=True)]
        return torch.cat([part.to(x.device) for part in parts], dim=-1)


def split_tensor(tensor: torch.Tensor, num_parts: int) -> list[torch.Tensor]:
    """Copies of a tensor's shares along its first dimension, sizes differing by one at most."""
    if num_parts < 1 or num_parts > tensor.shape[0]:
        raise ConfigError(f"n={num_parts}: a tensor of {tensor.shape[0]} rows has 1 to {tensor.shape[0]} parts")
    spans = [share(tensor.shape[0], index, num_parts) for index in range(num_parts)]
    return [tensor.detach()[span.start : span.stop].clone() for span in spans]


def split_linear_layers(module: nn.Module, devices: Sequence[str]) -> nn.Module:
    """Replace every linear layer inside a module, in place, by a ParallelLinear; one that has too few rows stays."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and child.out_features >= len(devices):
            setattr(module, name, ParallelLinear.split(child, devices))
        elif not isinstance(child, ParallelLinear):
            split_linear_layers(child, devices)
    return module


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made
