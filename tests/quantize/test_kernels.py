"""Packed layers compute what their own rounded weights say, in every precision, shape and number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from workbench.quantize import QuantizationConfig
from workbench.quantize.memory import storage_bytes
from workbench.quantize.methods.dynamic import DynamicInt8Linear
from workbench.quantize.methods.int4 import Int4Weight
from workbench.quantize.methods.int8 import Int8Weight

INT8 = QuantizationConfig("int8", dynamic=False)
INT4 = QuantizationConfig("int4")


def _weight(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).mul(0.05).to(dtype)


def _error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_rows", [1, 3, 40])
@pytest.mark.parametrize("out_features", [64, 37])
def test_int8_layer_and_its_weights_agree(dtype: torch.dtype, num_rows: int, out_features: int) -> None:
    packed = Int8Weight.pack(_weight(out_features, 96, dtype), INT8)
    exact = packed.values.float() * packed.scales.float().unsqueeze(1)
    x = torch.randn(2, num_rows, 96).to(dtype)
    bias = torch.randn(out_features).to(dtype)
    assert _error(packed.linear(bias)(x), x.float() @ exact.T + bias.float()) < 0.01
    assert _error(exact, _weight(out_features, 96, dtype)) < 0.01


def test_an_int8_row_is_the_same_beside_as_many_others_as_a_pass_has() -> None:
    layer = Int8Weight.pack(torch.randn(192, 64, dtype=torch.bfloat16), QuantizationConfig("int8")).linear(None)
    rows = torch.randn(32, 64, dtype=torch.bfloat16)
    together = layer(rows)
    assert all(torch.equal(layer(rows[:count]), together[:count]) for count in range(2, 33))


def test_reduced_range_and_one_scale_round_more_coarsely() -> None:
    weight = _weight(64, 96)
    weight[0] *= 20
    errors = []
    for flags in ({}, {"reduce_range": True}, {"per_channel": False}):
        packed = Int8Weight.pack(weight, QuantizationConfig("int8", dynamic=False, **flags))
        errors.append(_error(packed.values * packed.scales.unsqueeze(1), weight))
        assert packed.values.abs().max() == (63 if flags.get("reduce_range") else 127)
    assert errors[0] < errors[1]
    assert errors[0] < errors[2]


@pytest.mark.parametrize("num_rows", [1, 20])
def test_dynamic_layer_rounds_each_row_by_its_own_range(num_rows: int) -> None:
    weight = _weight(64, 96)
    packed = Int8Weight.pack(weight, QuantizationConfig("dynamic"))
    layer = DynamicInt8Linear(packed.values, packed.scales, None)
    x = torch.randn(num_rows, 96) * torch.logspace(-3, 3, num_rows).unsqueeze(1)
    for row, expected in zip(layer(x), x @ weight.T, strict=True):
        assert _error(row, expected) < 0.05
    assert layer(torch.zeros(1, 96)).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (192, 96), (48, 32)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_int4_layer_is_close_to_its_weight(dtype: torch.dtype, rows: int, columns: int, symmetric: bool) -> None:
    weight = _weight(rows, columns, dtype)
    layer = Int4Weight.pack(weight, QuantizationConfig("int4", symmetric=symmetric)).linear(None)
    x = torch.randn(5, columns).to(dtype)
    assert _error(layer(x), x @ weight.T) < (0.15 if symmetric else 0.11)
    if symmetric:
        assert layer.scales_and_zeros[..., 1].abs().max() == 0


def test_int4_keeps_what_has_sixteen_levels_already() -> None:
    levels = torch.randint(0, 16, (128, 4, 32))
    levels[..., 0], levels[..., 1] = 0, 15
    weight = (levels * 0.0078125 - 0.0625).view(128, 128)
    table = Int4Weight.pack(weight, INT4).embedding(torch.float32)
    assert torch.equal(table(torch.arange(128)), weight)


def test_a_packed_table_looks_up_what_the_layer_multiplies_with() -> None:
    packed = Int4Weight.pack(_weight(256, 64), INT4)
    ids = torch.tensor([[0, 255, 17], [64, 63, 128]])
    rows = packed.embedding(torch.float32)(ids)
    assert rows.shape == (2, 3, 64)
    columns = packed.linear(None)(torch.eye(64, dtype=torch.bfloat16)).float()
    assert torch.allclose(rows, columns.T[ids], rtol=0.01, atol=1e-4)
    eight = Int8Weight.pack(_weight(256, 64), INT8)
    assert torch.allclose(eight.embedding(torch.float32)(ids), _weight(256, 64)[ids], atol=2e-3)


def test_bytes_are_those_of_the_storages() -> None:
    packed = Int4Weight.pack(_weight(64, 64), INT4)
    layer = packed.linear(None)
    assert storage_bytes(layer) == 64 * 64 // 2 + 64 * 2 * 2 * 2
    assert storage_bytes(nn.ModuleList([layer, packed.linear(None)])) == storage_bytes(layer)
    view = nn.Module()
    view.register_buffer("part", torch.zeros(100)[:10])
    assert storage_bytes(view) == 400
