"""Native products and attention against float64 over random shapes; and one row's bits whatever rows are beside it."""

from __future__ import annotations

import ctypes

import pytest
import torch

from workbench.engine.native.matrix import Arena
from workbench.engine.native.structs import WeightKind
from workbench.quantize import QuantizationConfig
from workbench.quantize.grouped_weight import GroupedWeight
from workbench.quantize.methods.int4 import Int4Weight
from workbench.quantize.methods.int8 import Int8Weight


def _grouped(rows: int, columns: int, bits: int, dtype: torch.dtype):
    scales = torch.rand(rows, columns // 32).mul(0.01).to(dtype)
    if bits == 8:
        return GroupedWeight(torch.randint(-128, 128, (rows, columns), dtype=torch.int8), scales, None).linear(None)
    levels = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8)
    return GroupedWeight(levels, scales, torch.rand(rows, columns // 32).mul(-0.08).to(dtype)).linear(None)


def _bf16(rows: int, columns: int):
    return torch.nn.Linear(columns, rows, bias=False, dtype=torch.bfloat16)


def _fp32(rows: int, columns: int):
    return torch.nn.Linear(columns, rows, bias=False)


def _int8(rows: int, columns: int):
    return Int8Weight.pack(torch.randn(rows, columns).bfloat16(), QuantizationConfig("int8", dynamic=False)).linear(
        None
    )


def _int4(rows: int, columns: int):
    return Int4Weight.pack(torch.randn(rows, columns).bfloat16(), QuantizationConfig("int4", group_size=64)).linear(
        None
    )


def _exact(holder) -> torch.Tensor:
    if hasattr(holder, "weight_groups"):
        return holder.weight_groups.rows(slice(None)).double()
    if hasattr(holder, "values"):
        return holder.values.double() * holder.scales.double().unsqueeze(1)
    if hasattr(holder, "packed"):
        return holder(torch.eye(holder.in_features, dtype=torch.bfloat16)).double().T
    return holder.weight.detach().double()


HOLDERS = {
    "4 bits, halves": lambda rows, columns: _grouped(rows, columns, 4, torch.float16),
    "4 bits, floats": lambda rows, columns: _grouped(rows, columns, 4, torch.float32),
    "8 bits, halves": lambda rows, columns: _grouped(rows, columns, 8, torch.float16),
    "8 bits, floats": lambda rows, columns: _grouped(rows, columns, 8, torch.float32),
    "bf16": _bf16,
    "fp32": _fp32,
    "int8": _int8,
    "int4": _int4,
}


def _rounded(x: torch.Tensor, name: str) -> torch.Tensor:
    """Activations as the kernels read them: as their weights are, beside integers 8 bits with a scale for each 32."""
    if name == "fp32":
        return x.double()
    if name == "bf16":
        return x.bfloat16().double()
    groups = x.unflatten(1, (-1, 32))
    largest = groups.abs().amax(-1, keepdim=True)
    return ((groups * (127.0 / largest)).round().double() * (largest / 127.0).double()).flatten(1)


def _error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The mean over rows of the relative error."""
    return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).mean())


def _multiply(library, matrix, x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(x.shape[0], -(-matrix.rows // 16) * 16)
    library.multiply(ctypes.byref(matrix), x.data_ptr(), x.shape[0], out.data_ptr())
    return out


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (128, 576), (192, 1536)])
def test_a_product_is_that_of_the_dequantised_weights(library, name: str, rows: int, columns: int) -> None:
    torch.manual_seed(rows + columns)
    holder = HOLDERS[name](rows, columns)
    arena = Arena(library, [holder])
    matrix = arena.pack(holder)
    x = torch.randn(71, columns) * torch.logspace(-3, 3, 71).unsqueeze(1)
    weight = _exact(holder)
    actual = _multiply(library, matrix, x)[:, :rows].double()
    # torch gives the packed int4 weights only through a product of its own in bf16.
    assert _error(actual, _rounded(x, name) @ weight.T) < (4e-3 if name == "int4" else 2e-6)
    assert _error(actual, x.double() @ weight.T) < 8e-3


@pytest.mark.parametrize("name", HOLDERS)
def test_a_row_has_the_same_bits_in_any_batch(library, name: str) -> None:
    torch.manual_seed(0)
    holder = HOLDERS[name](128, 576)
    arena = Arena(library, [holder])
    matrix = arena.pack(holder)
    x = torch.randn(100, 576)
    together = _multiply(library, matrix, x)
    for size in (1, 2, 3, 5, 8, 15, 16, 17, 33, 64):
        parts = [_multiply(library, matrix, part.contiguous()) for part in x.split(size)]
        assert torch.equal(torch.cat(parts), together)


def test_rows_that_fill_up_the_last_block_are_zero_and_what_is_no_number_stays_so(library) -> None:
    holder = _grouped(37, 64, 4, torch.float16)
    arena = Arena(library, [holder])
    matrix = arena.pack(holder)
    assert _multiply(library, matrix, torch.randn(3, 64))[:, 37:].abs().max() == 0
    assert _multiply(library, matrix, torch.full((1, 64), torch.nan))[:, :37].isnan().all()


def test_quantised_weights_take_no_more_than_torchs_layout(library) -> None:
    int4 = Int4Weight.pack(torch.randn(192, 1536).bfloat16(), QuantizationConfig("int4")).linear(None)
    for holder in (_int8(192, 1536), int4, _grouped(192, 1536, 4, torch.float16), _bf16(192, 1536)):
        held = sum(tensor.nbytes for tensor in (*holder.parameters(), *holder.buffers()))
        assert Arena(library, [holder]).num_bytes == pytest.approx(held, rel=0.01)


def test_scales_that_half_precision_would_change_are_floats(library) -> None:
    """Tiny ones, here; the product is as exact as with others."""
    weight = torch.randn(64, 64).mul(1e-6).bfloat16()
    holder = Int4Weight.pack(weight, QuantizationConfig("int4")).linear(None)
    arena = Arena(library, [holder])
    matrix = arena.pack(holder)
    assert matrix.kind == WeightKind.INT4_FLOAT
    x = torch.randn(8, 64)
    assert _error(_multiply(library, matrix, x).double(), _rounded(x, "int4") @ _exact(holder).T) < 4e-3


def _attend(library, keys, values, table, block_size, kv_head, first, last, queries, scale) -> torch.Tensor:
    out = torch.empty_like(queries)
    library.attend(
        keys.dtype is torch.bfloat16, keys.data_ptr(), values.data_ptr(), table.data_ptr(), block_size,
        keys.shape[1], keys.shape[2], kv_head, first, last, queries.shape[0], scale, queries.data_ptr(), out.data_ptr(),
    )  # fmt: skip
    return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("dim", "group", "block_size"), [(64, 3, 16), (128, 8, 16), (96, 1, 4), (256, 5, 32)])
def test_attention_is_that_of_float64(library, dtype: torch.dtype, dim: int, group: int, block_size: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    num_blocks, num_kv_heads, kv_head = 80, 2, 1
    keys, values = (
        torch.randn(num_blocks * block_size, num_kv_heads, dim, generator=generator).to(dtype) for _ in range(2)
    )
    table = torch.randperm(num_blocks, generator=generator).to(torch.int32)
    queries = torch.randn(group, dim, generator=generator)
    longest = num_blocks * block_size
    slots = (table.long().unsqueeze(1) * block_size + torch.arange(block_size)).flatten()
    for first, last in [(0, 0), (0, 14), (0, 15), (0, 16), (0, longest - 1), (5, 200), (37, 40), (190, 222)]:
        key, value = (t[slots[first : last + 1], kv_head].double() for t in (keys, values))
        expected = torch.softmax(queries.double() @ key.T * dim**-0.5, dim=-1) @ value
        actual = _attend(library, keys, values, table, block_size, kv_head, first, last, queries, dim**-0.5)
        assert (actual - expected).norm() / expected.norm() < 2e-6
