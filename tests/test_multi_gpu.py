"""The documented names for several GPUs run the model, here with processes on the CPU."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import multi_gpu
import pytest
import torch
from distributed.group_model import ENGINE, save_model

from workbench import LlamaGPU
from workbench.engine import SamplingParams
from workbench.errors import ConfigError, EngineStoppedError

_ROWS = [[7, 8, 9, 10], [20, 21, 22], [3, 4, 5, 6, 7]]
_OPTIONS = {"prefer_gpu": False, "quant_type": "fp32", "engine": ENGINE}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved") / "model", "llama")


@pytest.fixture(scope="module")
def expected(model: Path) -> tuple[str, list[list[float]]]:
    """What one process says: a text, and the rows' log-probabilities."""
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    with LlamaGPU(str(model), **_OPTIONS) as one:
        scores = [one.submit(row, params=params).result(60).prompt_logprobs[1:] for row in _ROWS]
        return one.infer("abc", max_tokens=8), [[entry.logprob for entry in row] for row in scores]


def _assert_same(found: list[list[float]], expected: list[list[float]]) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_tensor_parallelism(model: Path, expected) -> None:
    config = multi_gpu.GPUConfig(gpu_ids=[0, 1], strategy="tensor_parallel")
    with multi_gpu.TensorParallelism(model, config, **_OPTIONS) as tensor:
        assert tensor.generate("abc", max_tokens=8) == expected[0]
        _assert_same(tensor.forward_parallel(_ROWS), expected[1])
        stats = tensor.get_stats()
        assert stats["gpu_config"]["tensor_parallel_size"] == 2
        assert set(stats["load_balancing"]) >= {"total_requests", "gpu_assignments", "gpu_loads", "gpu_memory"}
        (replica,) = stats["replicas"]
        assert replica["tokens_per_s"] > 0 and replica["num_in_flight"] == 0
        assert (stats["state"], stats["reason"]) == ("running", None)
        assert stats["load_balancing"]["gpu_assignments"] == {0: 1 + len(_ROWS)}
        layer = torch.nn.Linear(3, 5)
        x = torch.randn(2, 3)
        whole = layer(x)
        split = tensor.split_linear_layers(torch.nn.Sequential(layer))
        assert isinstance(split[0], multi_gpu.ParallelLinear)
        assert [part.out_features for part in split[0].layers] == [2, 3]
        assert torch.equal(split(x), whole)
        assert [len(part) for part in tensor._split_tensor(layer.weight, 3)] == [1, 2, 2]
        _assert_counts_are_the_runs(tensor)
        os.kill(replica["ranks"][1]["process_id"], signal.SIGKILL)
        with pytest.raises(EngineStoppedError):
            tensor.generate("abc", max_tokens=500, ignore_eos=True)
        stats = tensor.get_stats()
        assert stats["state"] == "dead" and "rank 1 of 2 was killed (SIGKILL)" in stats["reason"]
        assert stats["replicas"][0]["is_alive"] is False
        assert stats["replicas"][0]["ended"].startswith("rank 1 of 2 was killed (SIGKILL)")
    assert tensor.get_stats()["state"] == "unloaded"
    with pytest.raises(ConfigError, match="strategy='tensor': must be 'pipeline' here"):
        multi_gpu.PipelineParallelism(model, config, **_OPTIONS)


def _assert_counts_are_the_runs(inference: multi_gpu.MultiGPUInference) -> None:
    """While a request runs the manager and the balancer have it, on both GPUs, and afterwards no more."""
    manager, balancer = inference.gpu_manager, inference.load_balancer
    before = balancer.get_balancing_stats()["total_requests"]
    pieces = inference.stream("abc", max_tokens=400, ignore_eos=True)
    next(pieces)
    assert [manager.num_in_flight(gpu_id) for gpu_id in (0, 1)] == [1, 1]
    assert [queue.qsize() for queue in manager.request_queues.values()] == [1, 1]
    assert 0 < manager.get_gpu_load(0) == manager.gpu_loads[1] < 1
    pieces.close()
    inference.generate("abc", max_tokens=1)
    assert manager.gpu_loads == {0: 0.0, 1: 0.0}
    assert balancer.get_balancing_stats()["total_requests"] == before + 2
    assert balancer.balancing_stats["gpu_assignments"] == {0: before + 2, 1: 0}
    # A request of somebody's own, on the processes that stand for GPUs.
    gpu_id = balancer.assign_request({"prompt": "abc"})
    assert manager.get_available_gpus() == [0, 1] and manager.num_in_flight(gpu_id) == 1
    balancer.release(gpu_id)
    assert manager.gpu_loads == balancer.optimize_balancing() == {0: 0.0, 1: 0.0}
    assert 0 < manager.get_gpu_memory_usage(0) < 1 and manager.devices == ["cpu", "cpu"]


def test_pipeline_parallelism(model: Path, expected) -> None:
    config = multi_gpu.GPUConfig(num_gpus=2, strategy="pipeline_parallel", stages=2)
    with multi_gpu.PipelineParallelism(model, config, **_OPTIONS) as pipeline:
        _assert_same(pipeline.forward_pipeline(torch.tensor([row[:3] for row in _ROWS])), [r[:2] for r in expected[1]])
        assert pipeline.pipeline_stages == [range(0, 1), range(1, 2)]
        assert pipeline.generate("abc", max_tokens=8) == expected[0]
        assert 0 <= pipeline.bubble_share < 1


def test_the_manager_answers_too_with_what_is_there(model: Path, expected) -> None:
    manager = multi_gpu.MultiGPUManager(
        multi_gpu.GPUConfig([900, 901]), degrade=True, model=model, options={"quant_type": "fp32", "engine": ENGINE}
    )
    try:
        assert manager.generate("abc", max_tokens=8, temperature=0.0) == expected[0]
    finally:
        manager.stop()
        manager.stop()


def test_a_split_keeps_biases_names_and_what_cannot_be_split() -> None:
    from workbench.distributed.parallel_linear import ParallelLinear, split_linear_layers, split_tensor

    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"wide": torch.nn.Linear(4, 7, bias=False), "narrow": torch.nn.Linear(7, 1)})
    x = torch.randn(3, 4)
    whole = module["narrow"](module["wide"](x))
    split_linear_layers(module, ["cpu", "cpu"])
    assert isinstance(module["wide"], ParallelLinear) and isinstance(module["narrow"], torch.nn.Linear)
    assert torch.allclose(module["narrow"](module["wide"](x)), whole)
    with pytest.raises(ConfigError, match="n=9: a tensor of 7 rows has 1 to 7 parts"):
        split_tensor(torch.zeros(7, 2), 9)
    with pytest.raises(ConfigError, match="layers: 1 for 2 devices"):
        ParallelLinear([torch.nn.Linear(2, 2)], ["cpu", "cpu"])
