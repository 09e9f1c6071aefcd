"""`LlamaGPU(parallel=...)`: the documented door to several devices, here with processes on the CPU."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from distributed.group_model import ENGINE, PROMPTS, Said, answers, save_model

from workbench import EngineConfig, LlamaGPU
from workbench.device_choice import choose_device
from workbench.errors import ConfigError, EngineStoppedError
from workbench.parallel import GPUConfig

_TEXTS = ["alpha", "beta gamma", "delta", "epsilon zeta eta"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("saved") / "model", "llama"))


def _open(model: str, **options) -> LlamaGPU:
    return LlamaGPU(model, prefer_gpu=False, quant_type="fp32", engine=ENGINE, **options)


def test_replicas_answer_alike_survive_one_and_come_back(model: str) -> None:
    config = GPUConfig(num_gpus=2, strategy="data", load_balancing="least_loaded")
    with _open(model) as one, _open(model, parallel=config) as llm:
        expected = one.batch_infer(_TEXTS, max_tokens=8)
        undisturbed = [generation.result(60) for generation in _start_all(one)]
        assert llm.batch_infer(_TEXTS, max_tokens=8) == expected
        first, second = llm.replicas()
        assert {first.requests_total, second.requests_total} == {2}
        assert first.num_in_flight == second.num_in_flight == 0
        assert llm.degraded_reason is None
        assert llm.stats().requests_total == 4
        processes = [rank.process_id for rank in (*first.ranks, *second.ranks)]
        assert (llm.isolation, len({os.getpid(), *processes})) == ("process", 3)
        assert llm.weight_bytes == 2 * one.weight_bytes
        assert llm.limits.num_blocks == 2 * one.limits.num_blocks

        _kill_under_load(llm, processes[0], undisturbed)
        assert llm.degraded_reason == "replicas [0] of 2 have stopped"
        assert llm.replicas()[0].death.ended_process.startswith("replica 0 of 2's process was killed (SIGKILL)")
        assert llm.is_loaded
        assert llm.batch_infer(_TEXTS, max_tokens=8) == expected

        assert llm.restart_stopped() == [0]
        assert llm.degraded_reason is None
        assert [g.result(60).token_ids for g in _start_all(llm)] == [said.token_ids for said in undisturbed]
        assert {replica.num_in_flight for replica in llm.replicas()} == {0}
        processes.append(llm.replicas()[0].ranks[0].process_id)
    _assert_gone(processes)


def test_copies_can_be_what_one_device_can_have(tmp_path: Path) -> None:
    # No rank can hold a share of such a family, nor of such weights.
    model = str(save_model(tmp_path / "model", "gpt2", bos_token_id=0, eos_token_id=0))
    options = {"prefer_gpu": False, "quant_type": "int8", "engine": EngineConfig(kv_cache_tokens=4096)}
    with LlamaGPU(model, **options) as one:
        expected = one.batch_infer(_TEXTS, max_tokens=8)
    with LlamaGPU(model, parallel=GPUConfig(num_gpus=2, strategy="data"), **options) as llm:
        assert llm.precision == "int8"
        assert llm.batch_infer(_TEXTS, max_tokens=8) == expected
        assert {replica.requests_total for replica in llm.replicas()} == {2}


def test_the_engine_of_a_group_may_have_a_process_of_its_own(model: str) -> None:
    engine = replace(ENGINE, isolation="process")
    config = GPUConfig(num_gpus=2, strategy="pipeline")
    with (
        _open(model) as one,
        LlamaGPU(model, prefer_gpu=False, quant_type="fp32", engine=engine, parallel=config) as llm,
    ):
        assert llm.batch_infer(_TEXTS, max_tokens=8) == one.batch_infer(_TEXTS, max_tokens=8)
        (group,) = llm.replicas()
        assert [rank.place.stage for rank in group.ranks] == [0, 1]
        assert 0 < group.pipeline.bubble_share < 1
        os.kill(group.ranks[1].process_id, signal.SIGKILL)
        with pytest.raises(EngineStoppedError, match="rank 1 of 2.* was killed") as raised:
            llm.submit(PROMPTS[0], max_tokens=8, ignore_eos=True).result(60)
        assert raised.value.ended_process.startswith("rank 1 of 2 (stage 1 of 2) was killed (SIGKILL)")
        assert llm.death.ended_process == raised.value.ended_process
    _assert_gone([rank.process_id for rank in group.ranks])


def test_groups_of_stages_of_tensor_ranks_are_replicas_too(model: str) -> None:
    sizes = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "data_parallel_size": 2}
    config = GPUConfig(num_gpus=8, strategy="hybrid", load_balancing="round_robin", **sizes)
    with _open(model) as one, _open(model, parallel=config) as llm:
        undisturbed = [generation.result(60) for generation in _start_all(one)]
        assert [len(replica.ranks) for replica in llm.replicas()] == [4, 4]
        processes = [rank.process_id for replica in llm.replicas() for rank in replica.ranks]
        # The second stage's second rank of the first group, which the group does not outlive.
        _kill_under_load(llm, llm.replicas()[0].ranks[3].process_id, undisturbed)
        assert llm.degraded_reason == "replicas [0] of 2 have stopped"
    _assert_gone(processes)


def test_replicas_of_the_embedded_model(home_with_embedded_model: Path, embedded_alone: Said) -> None:
    with _open("default", parallel=GPUConfig(num_gpus=2, strategy="data")) as llm:
        assert answers(llm._client, 6) == embedded_alone.answers
        assert {replica.requests_total for replica in llm.replicas()} == {10}


def _start_all(llm: LlamaGPU, num_tokens: int = 60) -> list:
    """Every second prompt greedy, the others sampled by a seed."""
    return [
        llm.submit(prompt, max_tokens=num_tokens, ignore_eos=True, temperature=0.9 * (i % 2), seed=i)
        for i, prompt in enumerate(PROMPTS)
    ]


def _kill_under_load(llm: LlamaGPU, process_id: int, undisturbed: list) -> None:
    """Every answer is what it is undisturbed, though one of the first replica's has begun when that dies."""
    generations = _start_all(llm)
    pieces = iter(generations[0])
    begun = [next(pieces)]
    os.kill(process_id, signal.SIGKILL)
    begun += pieces
    assert "".join(piece.text for piece in begun) == undisturbed[0].text
    for generation, expected in zip(generations, undisturbed, strict=True):
        completion = generation.result(60)
        assert (completion.text, completion.token_ids) == (expected.text, expected.token_ids)
        assert completion.finish_reason == expected.finish_reason
    assert llm._client.pool_stats().requests_resumed_total >= 1


def _assert_gone(process_ids: list[int]) -> None:
    for process_id in process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


def test_what_cannot_be_spread_is_refused_with_the_reason(model: str) -> None:
    with pytest.raises(ConfigError, match="must be one of 1, 2, 4, 8"):
        _open(model, parallel=GPUConfig(num_gpus=3))
    with pytest.raises(ConfigError, match="must be fp32, bf16 or fp16"):
        LlamaGPU(model, prefer_gpu=False, quant_type="int8", parallel=GPUConfig(num_gpus=2))
    with pytest.raises(ConfigError, match="gpu_ids say which devices"):
        _open(model, parallel=GPUConfig(num_gpus=2), device_index=1)


def test_gpus_that_are_not_there_are_named_or_done_without(model: str) -> None:
    from workbench.backends import detect
    from workbench.errors import GPUUnavailableError

    if any(status.available and status.backend.device_type != "cpu" for status in detect()):
        pytest.skip("this machine has a GPU")
    with pytest.raises(GPUUnavailableError, match=r"\[0, 1\] cannot be used; there is .*cpu: 0"):
        LlamaGPU(model, quant_type="fp32", engine=ENGINE, parallel=GPUConfig(num_gpus=2))
    with LlamaGPU(model, quant_type="fp32", engine=ENGINE, parallel=GPUConfig(num_gpus=2), degrade=True) as llm:
        assert "using the CPU" in llm.degraded_reason
        assert llm.infer("one", max_tokens=4)


def test_the_engines_share_of_memory_counts_where_the_config_has_none() -> None:
    given = {"prefer_gpu": False, "device_index": 0, "degrade": False, "cluster": None, "memory_fraction": 0.5}
    for parallel, share in ((GPUConfig([0, 1]), 0.5), (GPUConfig([0, 1], memory_fraction=0.7), 0.7)):
        spread = choose_device(None, "cpu", parallel=parallel, **given).spread
        assert spread is not None and spread.config is not None and spread.config.memory_fraction == share
