"""What a method is: something that makes a model's matrices smaller, one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.layers import quantize_layers
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.weight_use import WeightUse

__all__ = ["Method"]


class Method(ABC):
    """Stateless; one object a method.

    With `needs_samples` it cannot work without texts to calibrate on; with `weighs_columns` it rounds better when it
    knows how much each column counts. `weight_kinds` are the packed weights that only it makes, by their kind, and
    `cache_name` sets what it keeps apart from what another method keeps for the same config.
    """

    needs_samples = False
    weighs_columns = False
    weight_kinds: Mapping[str, type[PackedWeight]] = MappingProxyType({})
    cache_name: str | None = None

    @property
    def packs(self) -> bool:
        """Whether it works on one matrix at a time, so that a model can be quantised while it is read."""
        return type(self).pack is not Method.pack

    @abstractmethod
    def unavailable_reason(self, device_type: str) -> str | None:
        """Why it cannot run on that kind of device, in words; None when it can."""

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        """The packed form of a matrix, on its device; None where it does not fit the layout.

        `use` says what it is for. A method that defines `apply` only (see `packs`) need not define this.
        """
        raise NotImplementedError

    def pack_higher(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight | None:
        """What becomes of a matrix that does not fit or loses too much; None leaves it in the model's precision."""
        return None

    def finish(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """Work on the model whose matrices are packed already, and name the layers that gained precision by it."""
        return ()

    def apply(self, model: nn.Module, config: QuantizationConfig, samples: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """Quantise `model` in place and name the layers that stayed in higher precision.

        `samples` are token ids [1, tokens] to measure layer errors on; may be empty unless the method needs them.
        Raises ConfigError when the model has nothing to quantise.
        """
        kept = quantize_layers(model, config, self, samples)
        return (*kept, *self.finish(model, config, samples))
