"""What each type does on this machine, tried on a small matrix; the clock is ours."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from workbench.quantize import CapabilityState, probe_capabilities
from workbench.quantize.methods.nf4 import Nf4


@pytest.fixture(scope="module")
def found():
    # Each look at it is one second later, so every product takes the same time.
    return {one.name: one for one in probe_capabilities("cpu", clock=count().__next__)}


def test_every_type_has_an_answer(found) -> None:
    assert list(found) == ["int8", "int4", "dynamic", "static", "nf4", "fp8"]
    for one in found.values():
        assert one.device == "cpu"
        assert one.is_usable or one.reason
        if one.is_usable:
            assert one.relative_speed == 1.0 and 0 < one.relative_error < 0.25
            assert one.in_words == "works, 1.0 times the speed of the unquantised product"
    assert found["int8"].is_usable and found["int8"].relative_error < found["int4"].relative_error


def test_much_slower_than_unquantised_is_said() -> None:
    # Five runs of the plain product take one second each, all later ones four.
    ticks = iter([*range(10), *range(10, 10_000, 4)])
    slow = {one.name: one for one in probe_capabilities("cpu", clock=ticks.__next__)}["int8"]
    assert slow.state is CapabilityState.SLOW
    assert slow.in_words == "slow: 4.0 times as long as the unquantised product"


def test_a_kernel_that_fails_or_is_wrong_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(torch.nn.Module):
        def forward(self, row):
            return torch.zeros(1, 1024, dtype=row.dtype)

    class Packed:
        def linear(self, bias):
            return Wrong()

    monkeypatch.setattr(Nf4, "pack", lambda self, *parts: Packed())
    assert {one.name: one for one in probe_capabilities("cpu")}["nf4"].in_words == "not: its results are 100% off"
    monkeypatch.setattr(Nf4, "pack", lambda self, *parts: 1 / 0)
    failing = {one.name: one for one in probe_capabilities("cpu")}["nf4"]
    assert failing.in_words == "not: it fails here: ZeroDivisionError: division by zero" and not failing.is_usable
