"""What becomes of the layers that lose most when a model is quantised while it is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from workbench.quantize import QuantizationConfig
from workbench.quantize.methods import Method
from workbench.quantize.methods.int8 import Int8Weight
from workbench.quantize.packed_weight import PackedWeight
from workbench.quantize.streaming import StreamingQuantizer
from workbench.quantize.weight_use import WeightUse
from workbench.shell import place

_INT8 = QuantizationConfig("int8", dynamic=False)


class SpoilsTwoRows(Method):
    """int8, but matrices of two rows come out as zeros. It has nothing better for them."""

    weighs_columns = True

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def pack(self, weight: torch.Tensor, config: QuantizationConfig, use: WeightUse) -> PackedWeight:
        return Int8Weight.pack(weight * 0 if weight.shape[0] == 2 else weight, _INT8)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64, bias=False)
        self.second = nn.Linear(64, 64, bias=False)
        self.last = nn.Linear(64, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(functional.one_hot(ids, 64).float())))


def _samples() -> Sequence[torch.Tensor]:
    return [torch.arange(64).unsqueeze(0)]


def test_what_a_method_cannot_do_better_is_plain_again() -> None:
    torch.manual_seed(0)
    original = Model().requires_grad_(False)
    with torch.device("meta"):
        shell = Model()
    weights = dict(original.named_parameters())
    quantizer = StreamingQuantizer(shell, QuantizationConfig("int4"), SpoilsTwoRows(), can_refine=True)
    for name in ("first.weight", "second.weight", "last.weight"):
        assert quantizer.take(name, weights[name]) is None
    place(shell, "last.bias", weights["last.bias"])
    quantizer.finish()
    assert type(shell.last) is not nn.Linear

    kept = quantizer.refine(lambda name: weights[name], _samples())

    assert kept == ("last",)
    assert type(shell.last) is nn.Linear
    assert torch.equal(shell.last.weight, original.last.weight)
    assert torch.equal(shell.last.bias, original.last.bias)
    assert type(shell.first) is not nn.Linear
    torch.testing.assert_close(shell(_samples()[0]), original(_samples()[0]), atol=0.02, rtol=0.05)
