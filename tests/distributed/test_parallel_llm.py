"""`LlamaGPU(parallel=...)`: the documented door to several devices, here with processes on the CPU."""

from __future__ import annotations

import os
import signal
import time

import pytest
from distributed.group_model import ENGINE, PROMPTS, save_model

from workbench import LlamaGPU
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
        assert llm.batch_infer(_TEXTS, max_tokens=8) == expected
        first, second = llm.replicas()
        assert {first.requests_total, second.requests_total} == {2}
        assert first.num_in_flight == second.num_in_flight == 0
        assert llm.degraded_reason is None
        assert llm.stats().requests_total == 4

        generations = [llm.submit(prompt, max_tokens=300, ignore_eos=True) for prompt in PROMPTS]
        next(iter(generations[0]))
        os.kill(first.ranks[0].process_id, signal.SIGKILL)
        started_s = time.monotonic()
        ends = [_end(generation) for generation in generations[1:]]
        assert time.monotonic() - started_s < 60
        # What had begun on the dead one fails with the reason; everything else has its whole answer.
        assert any(end == 300 for end in ends)
        assert all(end == 300 or "SIGKILL" in end for end in ends)
        assert llm.degraded_reason == "replicas [0] of 2 have stopped"
        assert llm.is_loaded
        assert llm.batch_infer(_TEXTS, max_tokens=8) == expected

        llm.restart_replica(0)
        assert llm.degraded_reason is None
        assert llm.batch_infer(_TEXTS, max_tokens=8) == expected
        processes = [rank.process_id for replica in llm.replicas() for rank in replica.ranks]
    for process_id in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)


def _end(generation) -> int | str:
    try:
        return len(generation.result(60).token_ids)
    except EngineStoppedError as error:
        return str(error)


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
