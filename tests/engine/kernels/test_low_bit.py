"""Low-bit weights: what they stand for, and the kernels that read them against products with just that."""

import pytest
import torch
import torch.nn.functional as F

from workbench.engine.kernels.gemv import gemv, gemv_gated
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace, low_bit_linear
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.errors import ConfigError

ROWS, COLUMNS = 100, 384


def make(kind: LowBitKind, device: str) -> tuple[torch.Tensor, LowBitWeight, torch.Tensor]:
    torch.manual_seed(0)
    original = torch.randn(ROWS, COLUMNS, device=device)
    packed = LowBitWeight.pack(original, kind)
    return original, packed, packed.dense(torch.float32)


def rms_norm(x, weight, eps=1e-5):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


@pytest.mark.parametrize(
    "kind, error, share", [(LowBitKind.INT8, 0.01, 0.51), (LowBitKind.FP8, 0.03, 0.51), (LowBitKind.INT4, 0.11, 0.26)]
)
def test_a_packed_weight_is_small_and_near(kind: LowBitKind, error: float, share: float, device: str) -> None:
    original, packed, dense = make(kind, device)
    assert (dense - original).norm() / original.norm() < error
    assert packed.num_bytes / (2 * original.numel()) < share


def test_a_row_of_zeros_stays_zero(device: str) -> None:
    for kind in LowBitKind:
        assert not LowBitWeight.pack(torch.zeros(2, 128, device=device), kind).dense(torch.float32).any()


def test_int4_needs_whole_groups(device: str) -> None:
    with pytest.raises(ConfigError, match="130 columns.*groups of 128"):
        LowBitWeight.pack(torch.zeros(2, 130, device=device), LowBitKind.INT4)


@pytest.mark.parametrize("kind", LowBitKind)
def test_one_row(kind: LowBitKind, device: str) -> None:
    _, packed, dense = make(kind, device)
    x, norm = torch.randn(2, COLUMNS, device=device)
    bias, before = torch.randn(2, ROWS, device=device)
    out = gemv(x, packed, x.new_empty(ROWS), bias=bias, norm=norm, eps=1e-5)
    torch.testing.assert_close(out, dense @ rms_norm(x, norm) + bias, rtol=1e-4, atol=1e-4)
    out = gemv(x, packed, before.clone(), add_to=before)
    torch.testing.assert_close(out, before + dense @ x, rtol=1e-4, atol=1e-4)
    gate, up = (dense @ rms_norm(x, norm)).split(ROWS // 2)
    out = gemv_gated(x, packed, x.new_empty(ROWS // 2), norm=norm, eps=1e-5)
    torch.testing.assert_close(out, F.silu(gate) * up, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", LowBitKind)
@pytest.mark.parametrize("rows", [2, 33, 300])
def test_some_rows_and_many(kind: LowBitKind, rows: int, device: str) -> None:
    _, packed, dense = make(kind, device)
    x, bias = torch.randn(rows, COLUMNS, device=device), torch.randn(ROWS, device=device)
    workspace = LowBitWorkspace.allocate([packed], torch.float32)
    # fp8 units round activations too, on the GPUs that have them.
    tolerance = 0.05 if kind is LowBitKind.FP8 and device == "cuda" else 1e-4
    for _ in range(2):  # the second launch finds its counters as the first one did
        out = low_bit_linear(x, packed, bias, workspace)
        expected = x @ dense.T + bias
        assert ((out - expected).norm() / expected.norm()).item() < tolerance
