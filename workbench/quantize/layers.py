"""Finds the weights of a model that can be quantised and puts packed modules in their place. Knows no method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from workbench.errors import ConfigError
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layer_error import LayerInputs, pick_worst, relative_error
from workbench.quantize.packed_weight import PackedWeight

__all__ = ["WeightSite", "find_sites", "quantize_layers"]

# (weight, config, whether rows of it are looked up) -> the packed weight, or None where it does not fit the layout.
Packer = Callable[[torch.Tensor, QuantizationConfig, bool], PackedWeight | None]


@dataclass(frozen=True)
class WeightSite:
    """One matrix and the names of the modules that use it; several where weights are tied."""

    weight: nn.Parameter
    linears: tuple[str, ...]
    embeddings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The module it is known by: a linear one where there is any."""
        return (self.linears + self.embeddings)[0]


def find_sites(model: nn.Module, with_embeddings: bool) -> list[WeightSite]:
    """Every matrix that only plain `nn.Linear` layers and the input embedding use.

    Without `with_embeddings`, none that the embedding uses: a second, packed copy of a tied one would add memory.
    Subclasses stay as they are, since they do more than multiply or look up.
    """
    users: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            users.setdefault(id(parameter), []).append((name, module))
    table = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    sites = []
    for parameter in model.parameters():
        modules = users[id(parameter)]
        linears = tuple(name for name, module in modules if type(module) is nn.Linear and module.weight is parameter)
        embeddings = tuple(name for name, module in modules if _is_plain_table(module, table))
        if len(linears) + len(embeddings) == len(modules) and (with_embeddings or not embeddings):
            sites.append(WeightSite(parameter, linears, embeddings))
    return sites


def quantize_layers(
    model: nn.Module,
    config: QuantizationConfig,
    pack: Packer,
    pack_higher: Packer | None,
    samples: Sequence[torch.Tensor],
) -> tuple[str, ...]:
    """Replace the model's matrices one by one and name those kept in higher precision.

    These are the ones that do not fit the layout and, with `preserve_accuracy`, the worst and the embedding table.
    They become what `pack_higher` makes; without it the table is no exception, and the others stay as they are. Raises
    ConfigError when there is nothing to quantise.
    """
    sites = find_sites(model, config.memory_efficient)
    if not sites:
        raise ConfigError(f"{type(model).__name__} has no layer to quantise: none is a plain nn.Linear")
    worst = _worst_sites(model, sites, config, pack, samples) if config.preserve_accuracy else frozenset()
    kept = []
    while sites:
        # Taken off the list, so that each matrix is freed once it is replaced.
        site = sites.pop(0)
        is_careful = config.preserve_accuracy and (site.name in worst or (site.embeddings and pack_higher is not None))
        packed = None if is_careful else pack(site.weight, config, bool(site.embeddings))
        if packed is None:
            kept.append(site.name)
            packed = pack_higher(site.weight, config, bool(site.embeddings)) if pack_higher else None
        if packed is not None:
            _replace(model, site, packed)
    return tuple(kept)


def _worst_sites(
    model: nn.Module, sites: list[WeightSite], config: QuantizationConfig, pack: Packer, samples
) -> frozenset[str]:
    inputs = LayerInputs.record(model, [name for site in sites for name in site.linears[:1]], samples)
    errors, sizes = {}, {}
    for site in sites:
        sizes[site.name] = site.weight.numel()
        packed = pack(site.weight, config, False) if site.linears and not site.embeddings else None
        if packed is not None:
            rows = inputs.rows(site.name, site.weight)
            errors[site.name] = relative_error(packed.linear(None), site.weight, rows)
    return pick_worst(errors, sizes)


def _replace(model: nn.Module, site: WeightSite, packed: PackedWeight) -> None:
    for name in site.linears:
        bias = model.get_submodule(name).bias
        model.set_submodule(name, packed.linear(None if bias is None else bias.detach()))
    for name in site.embeddings:
        model.set_submodule(name, packed.embedding(site.weight.dtype))


def _is_plain_table(module: nn.Module, table: nn.Module | None) -> bool:
    return module is table and type(module) is nn.Embedding and module.max_norm is None
