"""Finds the weights of a model that can be quantised and puts packed modules in their place. Knows no method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from workbench.errors import ConfigError
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layer_error import LayerInputs, pick_worst, relative_error
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.weight_use import WeightUse

__all__ = ["Packer", "WeightSite", "WeightUsers", "find_sites", "put_packed", "put_plain", "quantize_layers"]


class Packer(Protocol):
    """The two calls of a `Method` that make packed weights."""

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        """See Method."""

    def pack_higher(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        """See Method."""


@dataclass(frozen=True)
class WeightUsers:
    """The names of the modules that use one matrix; several where weights are tied."""

    linears: tuple[str, ...]
    embeddings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The module it is known by: a linear one where there is any."""
        return (self.linears + self.embeddings)[0]

    @property
    def is_table(self) -> bool:
        """Whether rows of it are looked up."""
        return bool(self.embeddings)


@dataclass(frozen=True)
class WeightSite(WeightUsers):
    """A matrix, and which modules use it."""

    weight: nn.Parameter


def find_sites(model: nn.Module, with_embeddings: bool) -> list[WeightSite]:
    """Every matrix that only plain `nn.Linear` layers and the input embedding use.

    Without `with_embeddings`, none that the embedding uses: a second, packed copy of a tied one would add memory.
    Subclasses stay as they are, since they do more than multiply or look up.
    """
    users: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            users.setdefault(id(parameter), []).append((name, module))
    find_table = getattr(model, "get_input_embeddings", None)
    table = None if find_table is None else find_table()
    sites = []
    for parameter in model.parameters():
        modules = users[id(parameter)]
        linears = tuple(name for name, module in modules if type(module) is nn.Linear and module.weight is parameter)
        embeddings = tuple(name for name, module in modules if _is_plain_table(module, table))
        if len(linears) + len(embeddings) == len(modules) and (with_embeddings or not embeddings):
            sites.append(WeightSite(linears, embeddings, parameter))
    if not sites:
        raise ConfigError(f"{type(model).__name__} has no layer to quantise: none is a plain nn.Linear")
    return sites


def quantize_layers(
    model: nn.Module, config: QuantizationConfig, method: Packer, samples: Sequence[torch.Tensor]
) -> tuple[str, ...]:
    """Replace the model's matrices one by one and name those kept in higher precision.

    These are the ones that do not fit the layout and, with `preserve_accuracy`, those that lose most on `samples`. They
    become what the method's `pack_higher` makes, or stay as they are. Raises ConfigError when there is nothing to
    quantise.
    """
    sites = find_sites(model, bool(config.memory_efficient))
    inputs = LayerInputs.unknown()
    worst: frozenset[str] = frozenset()
    if config.preserve_accuracy:
        inputs = LayerInputs.record(model, [site.linears[0] for site in sites if site.linears], samples)
        worst = _worst_sites(sites, config, method, inputs)
    kept = []
    while sites:
        # Taken off the list, so that each matrix is freed once it is replaced.
        site = sites.pop(0)
        use = WeightUse(site.is_table, inputs.mean_square(site.name))
        packed = None if site.name in worst else method.pack(site.weight, config, use)
        if packed is None:
            kept.append(site.name)
            packed = method.pack_higher(site.weight, config, use)
        if packed is not None:
            put_packed(model, site, packed, site.weight.dtype)
    return tuple(kept)


def put_packed(model: nn.Module, users: WeightUsers, packed: PackedWeight, dtype: torch.dtype) -> None:
    """Modules made of `packed` in place of the users; tables look up in `dtype`, biases are taken over."""
    for name in users.linears:
        # A plain linear layer, or a packed one when it is packed anew.
        layer: Any = model.get_submodule(name)
        model.set_submodule(name, packed.linear(None if layer.bias is None else layer.bias.detach()))
    for name in users.embeddings:
        model.set_submodule(name, packed.embedding(dtype))


def put_plain(model: nn.Module, users: WeightUsers, weight: torch.Tensor) -> None:
    """Plain modules that share `weight` in place of packed ones; biases are taken over."""
    parameter = nn.Parameter(weight, requires_grad=False)
    rows, columns = weight.shape
    for name in users.linears:
        packed: Any = model.get_submodule(name)
        linear = nn.Linear(columns, rows, bias=packed.bias is not None, device="meta")
        linear.weight = parameter
        if packed.bias is not None:
            linear.bias = nn.Parameter(packed.bias.detach(), requires_grad=False)
        model.set_submodule(name, linear)
    for name in users.embeddings:
        table = nn.Embedding(rows, columns, device="meta")
        table.weight = parameter
        model.set_submodule(name, table)


def _worst_sites(
    sites: Sequence[WeightSite], config: QuantizationConfig, method: Packer, inputs: LayerInputs
) -> frozenset[str]:
    errors, sizes = {}, {}
    for site in sites:
        sizes[site.name] = site.weight.numel()
        use = WeightUse(site.is_table, inputs.mean_square(site.name))
        packed = method.pack(site.weight, config, use) if site.linears else None
        if packed is not None:
            rows = inputs.rows(site.name, site.weight)
            errors[site.name] = relative_error(packed.linear(None), site.weight, rows)
    return pick_worst(errors, sizes)


def _is_plain_table(module: nn.Module, table: nn.Module | None) -> bool:
    return module is table and type(module) is nn.Embedding and module.max_norm is None
