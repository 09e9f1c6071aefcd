"""The adapter to vLLM: its settings, its death, and a machine without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.vllm import fake_vllm
from engine.vllm.test_engine_contract import _PROMPT, _launch

from workbench import EngineConfig, LlamaGPU
from workbench.engine import SamplingParams
from workbench.engine.vllm import vllm_obstacle
from workbench.engine.vllm.start import VLLMShape, engine_arguments, start_vllm
from workbench.errors import BackendUnavailableError, ConfigError, EngineStoppedError, RequestError
from workbench.models.loader import load_shell
from workbench.plugins import default_plugins


@pytest.fixture
def client(tiny_model_folder):
    started = start_vllm(_launch(tiny_model_folder), default_plugins(), library=fake_vllm)
    yield started.client
    started.client.stop()


def test_settings_become_vllms(tiny_model_folder) -> None:
    launch = _launch(tiny_model_folder, memory_fraction=0.5, max_num_seqs=8)
    spec = load_shell(launch.files, dtype="fp32").spec
    arguments = engine_arguments(launch, VLLMShape(tensor=2, pipeline=3, on_ray=True), spec)
    assert arguments["model"] == str(tiny_model_folder)
    assert (arguments["dtype"], arguments["max_model_len"]) == ("float32", 128)
    assert (arguments["gpu_memory_utilization"], arguments["max_num_seqs"]) == (0.5, 8)
    assert (arguments["tensor_parallel_size"], arguments["pipeline_parallel_size"]) == (2, 3)
    assert arguments["distributed_executor_backend"] == "ray"
    assert "block_size" not in arguments and "kv_cache_dtype" not in arguments
    with pytest.raises(ConfigError, match="num_threads=2"):
        engine_arguments(_launch(tiny_model_folder, num_threads=2), VLLMShape(), spec)


def test_its_cache_is_as_large_as_asked_and_on_a_cpu_never_a_share_of_the_machine(tiny_model_folder) -> None:
    def asked(tensor: int = 1, backend_name: str = "cpu", **engine: object) -> dict[str, object]:
        launch = replace(_launch(tiny_model_folder, **engine), backend_name=backend_name)
        return engine_arguments(launch, VLLMShape(tensor=tensor), spec)

    spec = load_shell(_launch(tiny_model_folder).files, dtype="fp32").spec
    token_bytes = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * 4
    assert asked(kv_cache_bytes=2**20)["kv_cache_memory_bytes"] == 2**20
    assert asked(kv_cache_tokens=64)["kv_cache_memory_bytes"] == 64 * token_bytes
    assert asked(tensor=2, kv_cache_tokens=64)["kv_cache_memory_bytes"] == 32 * token_bytes
    assert 0 < asked()["kv_cache_memory_bytes"] <= 512 * 2**20
    assert "kv_cache_memory_bytes" not in asked(backend_name="cuda")
    of_8_bits = asked(backend_name="cuda", kv_dtype="fp8", kv_cache_tokens=64, block_size=32)
    assert of_8_bits["kv_cache_memory_bytes"] == 16 * token_bytes
    assert (of_8_bits["kv_cache_dtype"], of_8_bits["block_size"]) == ("fp8", 32)


def test_the_gpus_that_were_chosen_are_vllms_and_ray_chooses_its_own(tiny_model_folder) -> None:
    def asked(shape: VLLMShape, backend_name: str = "cuda") -> object:
        launch = replace(_launch(tiny_model_folder), backend_name=backend_name)
        return engine_arguments(launch, shape, spec).get("device_ids")

    spec = load_shell(_launch(tiny_model_folder).files, dtype="fp32").spec
    assert asked(VLLMShape(device_indexes=(1,))) == [1]
    assert asked(VLLMShape(tensor=2, device_indexes=(2, 3))) == [2, 3]
    assert asked(VLLMShape(tensor=2, device_indexes=(0, 1))) is None, "it takes the first ones by itself"
    assert asked(VLLMShape(tensor=2, on_ray=True, device_indexes=(2, 3))) is None
    assert asked(VLLMShape(tensor=2, device_indexes=(0, 0)), backend_name="cpu") is None


def test_what_cannot_be_said_in_our_words_still_ends_the_answer(client) -> None:
    inside = client._core.engine
    generate = inside.generate

    async def with_rows_missing(*arguments):
        async for output in generate(*arguments):
            output.prompt_logprobs = [None]
            yield output

    inside.generate = with_rows_missing
    with pytest.raises(RequestError, match="vllm refuses the request"):
        client.submit(_PROMPT, SamplingParams(max_tokens=1, prompt_logprobs=1)).result(60)


@pytest.mark.parametrize("settings", [{"typical_p": 0.5}, {"no_repeat_ngram_size": 2}])
def test_a_setting_that_it_has_not_is_an_error_and_not_left_out(client, settings) -> None:
    with pytest.raises(RequestError, match=next(iter(settings))):
        client.submit(_PROMPT, SamplingParams(**settings)).result(60)


def test_its_death_ends_every_request_and_the_client(client) -> None:
    inside = client._core.engine
    client._core._pump._loop.call_soon_threadsafe(inside.gate.clear)
    waiting = [client.submit(_PROMPT, SamplingParams(max_tokens=50)) for _ in range(3)]
    inside.die()
    for generation in waiting:
        with pytest.raises(EngineStoppedError, match="the vllm engine died"):
            generation.result(60)
    assert not client.is_alive
    with pytest.raises(EngineStoppedError, match="the vllm engine died"):
        client.submit(_PROMPT, SamplingParams())


def test_stopping_ends_what_runs_and_shuts_it_down(client) -> None:
    inside = client._core.engine
    client._core._pump._loop.call_soon_threadsafe(inside.gate.clear)
    waiting = client.submit(_PROMPT, SamplingParams(max_tokens=50))
    client.stop()
    with pytest.raises(EngineStoppedError):
        waiting.result(60)
    assert inside.is_shut_down and inside.aborted == [waiting.request_id]


def test_without_it_the_choice_says_why(tiny_model_folder) -> None:
    if vllm_obstacle() is None:
        pytest.skip("vllm is installed")
    with pytest.raises(BackendUnavailableError, match="vllm is not installed: pip install"):
        LlamaGPU(str(tiny_model_folder), prefer_gpu=False, engine=EngineConfig(engine_name="vllm"))
