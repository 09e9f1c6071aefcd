"""Which runner is chosen and in what words it says why, decided without the devices that it is about."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from workbench.engine.runner_choice import kernels_unavailable_reason, plan_runner
from workbench.errors import BackendUnavailableError

_LAYERS = {0: SimpleNamespace(key_dim=64, value_dim=64, num_kv_heads=2)}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """Stands for an NVIDIA GPU of a compute capability, with Triton installed."""

    def put_in(*capability: int) -> None:
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace())
    return put_in


def test_the_kernels_need_a_gpu_that_is_new_enough(gpu) -> None:
    assert kernels_unavailable_reason("cpu", _LAYERS) == "the device is a CPU"
    gpu(7, 5)
    assert kernels_unavailable_reason("cuda:0", _LAYERS) == "the GPU is older than compute capability 8.0"
    gpu(8, 0)
    assert kernels_unavailable_reason("cuda:0", _LAYERS) is None


def test_the_kernels_need_triton_and_keys_as_wide_as_values(gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(9, 0)
    uneven = {0: SimpleNamespace(key_dim=192, value_dim=128, num_kv_heads=2)}
    assert kernels_unavailable_reason("cuda:0", uneven) == "keys and values differ in size"
    monkeypatch.setitem(sys.modules, "triton", None)
    assert kernels_unavailable_reason("cuda:0", _LAYERS) == "Triton is not installed"


def test_layers_in_the_hosts_memory_keep_graphs_away(gpu) -> None:
    gpu(9, 0)
    plan = plan_runner(torch.nn.Linear(2, 2), _LAYERS, "cuda:0", num_host_layers=3)
    assert plan.obstacle == "the weights of 3 layers stay in the host's memory" and plan.num_kv_heads == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"num_host_layers": 1}, "the weights of 1 layers stay"), ({"keep_module": True}, "makes embeddings by it too")],
)
def test_packed_weights_that_cannot_be_are_refused_with_the_reason(gpu, options: dict, reason: str) -> None:
    gpu(9, 0)
    with pytest.raises(BackendUnavailableError, match=f"quant_type='int4' is not available .*{reason}"):
        plan_runner(torch.nn.Linear(2, 2), _LAYERS, "cuda:0", "int4", **options)


def test_an_unknown_architecture_runs_by_its_own_forward(gpu) -> None:
    gpu(9, 0)
    plan = plan_runner(torch.nn.Linear(2, 2), _LAYERS, "cuda:0", keep_module=True)
    assert plan.obstacle is None and plan.weights is None
    assert plan.why_unfused == "the model makes embeddings by it too"
