"""Products whose weights come by the copy engine, against exact ones of the same numbers."""

import pytest
import torch

from workbench.engine.kernels.narrow_matmul import NarrowTile, NarrowWorkspace, narrow_linear, narrow_tile
from workbench.engine.kernels.rounding import can_round, round_rows
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight

ROWS, COLUMNS = 100, 512


def weights(kind: LowBitKind | None, device: str) -> tuple[torch.Tensor | LowBitWeight, torch.Tensor]:
    """A weight of a kind (None: of 16 bits), and what it stands for."""
    plain = (torch.randn(ROWS, COLUMNS, device=device) * 0.05).to(torch.float16)
    if kind is None:
        return plain, plain.double()
    packed = LowBitWeight.pack(plain, kind)
    return packed, packed.dense(torch.float32).double()


@pytest.mark.parametrize("kind", [None, *LowBitKind])
@pytest.mark.parametrize("rows, programs", [(3, 1), (21, 8)], ids=["whole", "in parts"])
def test_products(kind: LowBitKind | None, rows: int, programs: int, device: str) -> None:
    dtype = torch.bfloat16 if kind is LowBitKind.FP8 else torch.float16
    if kind is not None and not can_round(kind, dtype, torch.device(device)):
        pytest.skip("fp8 tensor cores are needed")
    torch.manual_seed(rows)
    weight, exact = weights(kind, device)
    x = torch.randn(rows, COLUMNS, device=device).to(dtype)
    rounded = x if kind is None else round_rows(x, kind)
    workspace = NarrowWorkspace.allocate(torch.device(device))
    tile = NarrowTile(64, 128, programs, 4, 3)
    for _ in range(2):  # the counters must be left as they were
        out = narrow_linear(rounded, weight, dtype, workspace, tile).double()
        expected = x.double() @ exact.T
        assert (out - expected).norm() / expected.norm() < (0.04 if kind is LowBitKind.FP8 else 0.01)
    assert not workspace.counters.any()


def test_only_what_the_copy_engine_can_take_is_taken() -> None:
    narrow = torch.zeros(4096, 4096, dtype=torch.float16)
    assert narrow_tile(narrow, 8) is not None
    assert narrow_tile(narrow, 1) is None and narrow_tile(narrow, 200) is None
    assert narrow_tile(torch.zeros(64, 4100, dtype=torch.float16), 8) is None
    assert narrow_tile(narrow[:, 8:], 8) is None
