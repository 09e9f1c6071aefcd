"""Products of few rows on a Hopper GPU, against exact ones of the same numbers."""

import pytest
import torch
import torch.nn.functional as F

from workbench.engine.kernels.cuda_function import cuda_obstacle
from workbench.engine.kernels.few_rows import FewRowsProducts
from workbench.engine.kernels.rounding import round_rows
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.errors import BackendUnavailableError

ROWS, COLUMNS = 200, 6144


def test_a_cpu_has_none_and_says_why() -> None:
    device = torch.device("cpu")
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU"):
        FewRowsProducts(None, torch.bfloat16, device)
    assert FewRowsProducts.where_possible(torch.zeros(1), torch.bfloat16, device) is None


@pytest.mark.parametrize("kind", [None, *LowBitKind])
@pytest.mark.parametrize("rows", [2, 8, 13])
def test_products(kind: LowBitKind | None, rows: int, device: str) -> None:
    obstacle = cuda_obstacle(torch.device(device))
    if obstacle is not None:
        pytest.skip(obstacle)
    torch.manual_seed(rows)
    products = FewRowsProducts(kind, torch.bfloat16, torch.device(device))
    plain = (torch.randn(ROWS, COLUMNS, device=device) * 0.02).to(torch.bfloat16)
    weight = plain if kind is None else LowBitWeight.pack(plain, kind)
    exact = (plain if isinstance(weight, torch.Tensor) else weight.dense(torch.float32)).double()
    x = torch.randn(rows, COLUMNS, device=device).to(torch.bfloat16)
    rounded = x if kind is None else round_rows(x, kind)
    if not products.take(rounded, weight):
        assert kind is not None and rows > 8
        return
    expected = x.double() @ exact.T
    gated = F.silu(expected[:, : ROWS // 2]) * expected[:, ROWS // 2 :]
    most = 0.05 if kind is LowBitKind.FP8 else 0.01
    for _ in range(50):  # what the copy engine brings must never overtake those who read it
        out = products.linear(rounded, weight).double()
        assert (out - expected).norm() / expected.norm() < most
        out = products.linear(rounded, weight, gated=True).double()
        assert (out - gated).norm() / gated.norm() < most
