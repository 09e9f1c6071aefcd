"""Low-bit weights: what they stand for, and the kernels that read them against products with just that."""

import pytest
import torch
import torch.nn.functional as F

from workbench.engine.kernels.gemv import gemv, gemv_gated
from workbench.engine.kernels.low_bit_matmul import LowBitWorkspace, low_bit_linear
from workbench.engine.kernels.norm import add_rms_norm
from workbench.engine.kernels.rounded_matmul import RoundedTile, rounded_linear
from workbench.engine.kernels.rounding import RoundedRows, add_rms_norm_rounded, can_round, round_rows, silu_mul_rounded
from workbench.engine.kernels.silu_mul import silu_mul
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
    for _ in range(2):  # the second launch finds its counters as the first one did
        out = low_bit_linear(x, packed, bias, workspace)
        expected = x @ dense.T + bias
        assert ((out - expected).norm() / expected.norm()).item() < 1e-4


def rounding_kinds(device: str) -> list[LowBitKind]:
    return [kind for kind in LowBitKind if can_round(kind, torch.bfloat16, torch.device(device))]


@pytest.mark.parametrize("rows", [1, 20, 70])
def test_rounded_rows_lose_no_more_than_their_weights(rows: int, device: str) -> None:
    for kind in rounding_kinds(device):
        _, packed, dense = make(kind, device)
        x = torch.randn(rows, COLUMNS, device=device).to(torch.bfloat16)
        x[0, 5] = 50.0  # one large value takes the small ones' bits
        workspace = LowBitWorkspace.allocate([packed], torch.bfloat16)
        expected = x.float() @ dense.T
        tolerance = 0.05 if kind is LowBitKind.FP8 else 0.004
        # A weight whose columns are no whole steps, cut into parts, and one tile for all.
        for tile in (None, RoundedTile(64, 16, 256, 4, 2), RoundedTile(128, 128, 64, 4, 2)):
            for _ in range(2):
                out = rounded_linear(round_rows(x, kind), packed, None, workspace, torch.bfloat16, tile=tile)
                assert ((out.float() - expected).norm() / expected.norm()).item() < tolerance


def test_rounding_after_a_norm_or_a_gate_is_rounding_of_what_they_give(device: str) -> None:
    for kind in rounding_kinds(device):
        x, delta = torch.randn(2, 3, 256, device=device).to(torch.bfloat16)
        norm = torch.randn(256, device=device).to(torch.bfloat16)
        plain_x = x.clone()
        plain = round_rows(add_rms_norm(plain_x, delta, norm, 1e-5, torch.empty_like(x)), kind)
        assert same(add_rms_norm_rounded(x, delta, norm, 1e-5, kind), plain)
        assert torch.equal(x, plain_x)
        gated = round_rows(silu_mul(delta, delta.new_empty(3, 128)), kind)
        assert same(silu_mul_rounded(delta, kind), gated)


def same(one: RoundedRows, other: RoundedRows) -> bool:
    pairs = ((one.high, other.high), (one.low, other.low), (one.scales, other.scales))
    return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)
