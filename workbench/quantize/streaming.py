"""Quantises a model whose weights arrive one by one, so that the whole of them is never in memory. Knows no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layer_error import LayerInputs, pick_worst, relative_error
from workbench.quantize.layers import find_sites, put_packed, put_plain
from workbench.quantize.methods.base import Method
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.weight_bytes import weight_bytes
from workbench.quantize.weight_use import WeightUse

__all__ = ["WORK_BYTES", "StreamingQuantizer", "quantized_bytes"]

# Methods round a part of a matrix at a time, and their temporary copies of it take less than this.
WORK_BYTES = 128 << 20

Read = Callable[[str], torch.Tensor]
Put = Callable[[str, torch.Tensor], None]


class StreamingQuantizer:
    """Takes the matrices of `shell` (on torch's meta device) as they are read; `finish` puts packed modules there.

    With `preserve_accuracy` the layers that lose most are asked for a second time: by `improve`, which judges them on
    random inputs, or, where `can_refine`, by `refine`, which asks for all and looks at what they really see.
    """

    def __init__(
        self, shell: nn.Module, config: QuantizationConfig, method: Method, *, can_refine: bool = False
    ) -> None:
        self._shell = shell
        self._config = config
        self._method = method
        self.can_refine = can_refine and method.weighs_columns and bool(config.preserve_accuracy)
        # What is rounded again later is rounded quickly first.
        self._first_config = replace(config, preserve_accuracy=False) if self.can_refine else config
        names = {id(parameter): name for name, parameter in shell.named_parameters()}
        self._sites = {names[id(site.weight)]: site for site in find_sites(shell, bool(config.memory_efficient))}
        find_head = getattr(shell, "get_output_embeddings", None)
        head = None if find_head is None else find_head()
        self._head = None if head is None else names.get(id(head.weight))
        self._packed: dict[str, PackedWeight] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._errors: dict[str, float] = {}
        self._kept: list[str] = []

    def takes(self, name: str) -> bool:
        """Whether the parameter `name` is one that is quantised."""
        return name in self._sites

    def take(self, name: str, weight: torch.Tensor) -> torch.Tensor | None:
        """Pack a weight that `takes` names; gives it back if it stays as it is."""
        site = self._sites[name]
        packed = self._method.pack(weight, self._first_config, self._use(name))
        if packed is None:
            self._kept.append(site.name)
            return self._take_higher(name, weight)
        if self._first_config.preserve_accuracy and site.linears:
            self._measure(name, packed, weight, LayerInputs.unknown())
        self._keep(name, packed, weight)
        return None

    def improve(self, read: Read, put: Put) -> None:
        """Read those that lost most again and give them more precision; `put` places one that stays as it is."""
        for name in sorted(pick_worst(self._errors, self._sizes())):
            self._kept.append(self._sites[name].name)
            del self._packed[name]
            weight = self._take_higher(name, read(name))
            if weight is not None:
                put(name, weight)

    def finish(self) -> tuple[str, ...]:
        """Put the packed modules into the shell and name the layers kept in higher precision."""
        for name in list(self._packed):
            put_packed(self._shell, self._sites[name], self._packed.pop(name), self._dtypes[name])
        return tuple(self._kept)

    def refine(self, read: Read, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """Round every matrix again, for what the finished model's layers see when it reads `samples`.

        Names the layers kept in higher precision.
        """
        names = [site.linears[0] for site in self._sites.values() if site.linears]
        inputs = LayerInputs.record(self._shell, names, samples)
        for name, site in self._sites.items():
            if site.name in self._kept:
                continue
            weight = read(name)
            packed = self._method.pack(weight, self._config, self._use(name, inputs.mean_square(site.name)))
            assert packed is not None  # it was packed before, by the same shape
            if site.linears:
                self._measure(name, packed, weight, inputs)
            put_packed(self._shell, site, packed, self._dtypes[name])
        for name in sorted(pick_worst(self._errors, self._sizes())):
            site = self._sites[name]
            self._kept.append(site.name)
            weight = read(name)
            packed = self._method.pack_higher(weight, self._config, self._use(name))
            if packed is None:
                put_plain(self._shell, site, weight)
            else:
                put_packed(self._shell, site, packed, self._dtypes[name])
        return tuple(self._kept)

    def _use(self, name: str, column_weights: torch.Tensor | None = None) -> WeightUse:
        return WeightUse(self._sites[name].is_table, column_weights, is_head=name == self._head)

    def _measure(self, name: str, packed: PackedWeight, weight: torch.Tensor, inputs: LayerInputs) -> None:
        rows = inputs.rows(self._sites[name].name, weight)
        self._errors[name] = relative_error(packed.linear(None), weight, rows)

    def _sizes(self) -> dict[str, int]:
        return {name: site.weight.numel() for name, site in self._sites.items()}

    def _take_higher(self, name: str, weight: torch.Tensor) -> torch.Tensor | None:
        packed = self._method.pack_higher(weight, self._config, self._use(name))
        if packed is None:
            return weight
        self._keep(name, packed, weight)
        return None

    def _keep(self, name: str, packed: PackedWeight, weight: torch.Tensor) -> None:
        self._packed[name] = packed
        self._dtypes[name] = weight.dtype


def quantized_bytes(shell: nn.Module, config: QuantizationConfig, device: str) -> int:
    """Bytes that loading `shell` quantised takes at most: what stays, and the work on the largest matrix."""
    sites = {id(site.weight): site for site in find_sites(shell, bool(config.memory_efficient))}
    total_bytes = sum(tensor.nbytes for tensor in shell.buffers())
    largest_bytes = 0
    for parameter in shell.parameters():
        site = sites.get(id(parameter))
        if site is None:
            total_bytes += parameter.nbytes
            continue
        largest_bytes = max(largest_bytes, parameter.nbytes)
        total_bytes += weight_bytes(
            config,
            *parameter.shape,
            is_embedding=site.is_table,
            element_bytes=parameter.element_size(),
            device_type=torch.device(device).type,
        )
    return total_bytes + largest_bytes + WORK_BYTES
