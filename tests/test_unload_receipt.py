import sys

import pytest

from workbench.unload_receipt import UnloadReceipt, find_holders, make_receipt

torch = pytest.importorskip("torch")


def _tensor():
    return torch.zeros(1_000_000)


def test_variables_outputs_and_what_they_contain_are_found():
    class Holder:
        pass

    holder = Holder()
    holder.parts = {"deep": [_tensor()]}
    namespace = {"x": _tensor(), "small": torch.zeros(3), "_7": _tensor(), "mine": holder, "_hidden": _tensor()}
    found = find_holders(namespace, shell=object())
    assert sorted(found) == [
        "the kept output _7 (4 MB)",
        "the variable mine (4 MB)",
        "the variable x (4 MB)",
    ]


def test_the_frames_of_the_last_error_are_found(monkeypatch):
    def fail():
        weights = _tensor()
        raise ValueError(weights.shape)

    try:
        fail()
    except ValueError as error:
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    (found,) = find_holders({}, shell=object())
    assert found.startswith("the traceback of the last error (4 MB)")


def test_modules_and_functions_are_not_followed():
    weights = _tensor()

    def function():
        return weights

    assert find_holders({"torch": torch, "function": function}, shell=object()) == []


def test_a_complete_receipt_looks_for_nothing():
    receipt = make_receipt({"cpu": 90_000_000}, 100_000_000)
    assert receipt.is_complete
    assert receipt.lines() == ["90 MB freed on cpu"]


def test_an_incomplete_one_says_what_is_missing():
    receipt = UnloadReceipt({"cuda:0": 1_000_000}, 2_000_000_000, ("the variable x (2.00 GB)",))
    assert receipt.lines() == [
        "1 MB freed on cuda:0",
        "less than the 2.00 GB of the model",
        "still held by the variable x (2.00 GB)",
    ]
    assert UnloadReceipt({}, 5_000_000).lines()[-1].startswith("nothing of this notebook holds it")
