"""One vLLM over a cluster's machines: what it is asked for, that its Ray ends with it, and what is refused before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.vllm import fake_vllm
from engine.vllm.test_engine_contract import _PROMPT, _launch

from workbench import EngineConfig, LlamaGPU
from workbench.device_choice import choose_device
from workbench.distributed.cluster import vllm_ranks
from workbench.distributed.cluster.config import ClusterConfig
from workbench.engine import SamplingParams
from workbench.engine.launch import EngineLaunch
from workbench.engine.vllm.start import VLLMShape
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.parallel import GPUConfig
from workbench.plugins import default_plugins
from workbench.progress import no_progress
from workbench.running_model import ModelStart


@pytest.fixture
def ray_steps(monkeypatch) -> list[str]:
    """What happened to Ray, which is not needed for this."""
    steps: list[str] = []
    monkeypatch.setattr(vllm_ranks, "import_ray", lambda: "ray")
    monkeypatch.setattr(vllm_ranks, "join_ray", lambda ray, cluster: steps.append(f"join {cluster.address}"))
    monkeypatch.setattr(vllm_ranks, "leave_ray", lambda ray: steps.append("leave"))
    return steps


def _start(folder: object, **engine: object):
    launch = replace(_launch(folder, **engine), dtype="bf16")
    shape = VLLMShape(tensor=2, pipeline=2, on_ray=True)
    return vllm_ranks.start_vllm_ranks(launch, ClusterConfig(address="auto"), shape, default_plugins(), fake_vllm)


def test_its_ranks_are_rays_and_its_ray_ends_with_the_client(tiny_model_folder, ray_steps) -> None:
    client = _start(tiny_model_folder).client
    arguments = client._core.engine.arguments
    assert arguments.distributed_executor_backend == "ray"
    assert (arguments.tensor_parallel_size, arguments.pipeline_parallel_size) == (2, 2)
    assert arguments.kv_cache_memory_bytes is None, "on GPUs, though the process that asks has none"
    assert client.submit(_PROMPT, SamplingParams(max_tokens=3)).result(60).finish_reason == "length"
    assert ray_steps == ["join auto"]
    client.stop()
    client.stop()
    assert ray_steps == ["join auto", "leave"]


def test_where_vllm_does_not_start_ray_is_left(tiny_model_folder, ray_steps, monkeypatch) -> None:
    def refuse(arguments: object) -> None:
        raise RuntimeError("needs 4 GPUs, the cluster has 2")

    monkeypatch.setattr(fake_vllm.AsyncLLMEngine, "from_engine_args", refuse)
    with pytest.raises(BackendUnavailableError, match="vllm did not start: needs 4 GPUs"):
        _start(tiny_model_folder)
    assert ray_steps == ["join auto", "leave"]


def test_one_model_over_a_cluster_is_for_vllm(tiny_model_folder) -> None:
    parallel, cluster = GPUConfig(gpu_ids=[0, 1], strategy="tensor_parallel"), ClusterConfig(address="auto")
    with pytest.raises(ConfigError, match="leave one out, or have engine_name='vllm'"):
        LlamaGPU(str(tiny_model_folder), parallel=parallel, cluster=cluster, engine=EngineConfig())
    given = {"prefer_gpu": True, "device_index": 0, "degrade": False, "parallel": parallel, "engine_name": "vllm"}
    choice = choose_device(None, None, cluster=cluster, **given)
    assert choice.spread is not None and choice.spread.config is parallel and choice.dtype == "bf16"
    with pytest.raises(ConfigError, match="replicas=3: over a cluster's machines the vllm engine is one copy"):
        choose_device(None, None, cluster=ClusterConfig(replicas=3), **given)


def test_its_share_of_a_gpu_is_the_spreads(tiny_model_folder, monkeypatch) -> None:
    shares = []

    def refuse(launch: EngineLaunch, *_: object) -> None:
        shares.append(launch.config.memory_fraction)
        raise BackendUnavailableError("no cluster here")

    monkeypatch.setattr(vllm_ranks, "start_vllm_ranks", refuse)
    given = {"prefer_gpu": True, "device_index": 0, "degrade": False, "engine_name": "vllm", "memory_fraction": 0.5}
    cluster = ClusterConfig(address="auto")
    for parallel in (GPUConfig([0, 1]), GPUConfig([0, 1], memory_fraction=0.7)):
        choice = choose_device(None, None, cluster=cluster, parallel=parallel, **given)
        start = ModelStart(_launch(tiny_model_folder), choice, cluster, {})
        with pytest.raises(BackendUnavailableError, match="no cluster here"):
            start.run(default_plugins(), no_progress)
    assert shares == [0.5, 0.7]
