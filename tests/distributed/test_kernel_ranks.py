"""Ranks that compute with the GPU's own kernels, here under Triton's interpreter: the same text, and the same end."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from distributed.group_model import ENGINE, files_of, save_model, start

from workbench import LlamaGPU
from workbench.engine import SamplingParams
from workbench.engine.client import EngineClient
from workbench.errors import EngineStoppedError

# Not imported here: the kernels' own tests set its interpreter before they do.
pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed: its kernels cannot run here"
)

PROMPTS = [[(5 * i) % 200 + 3 for i in range(9)], [42]]
WAYS = [
    SamplingParams(max_tokens=2, ignore_eos=True),
    SamplingParams(max_tokens=2, ignore_eos=True, temperature=0.8, seed=4),
    # Chosen on the host, from logits that come through shared memory.
    SamplingParams(max_tokens=2, ignore_eos=True, repetition_penalty=1.3),
]


def _answers(client: EngineClient) -> list[tuple[int, ...]]:
    running = [client.submit(prompt, params) for params in WAYS for prompt in PROMPTS]
    return [generation.result(120).token_ids for generation in running]


def _scores(client: EngineClient) -> list[float]:
    params = SamplingParams(max_tokens=1, ignore_eos=True, prompt_logprobs=0)
    return [entry.logprob for entry in client.submit(PROMPTS[0], params).result(120).prompt_logprobs[1:]]


@dataclass(frozen=True)
class Alone:
    """A model, and what one process says and scores."""

    model: Path
    answers: list[tuple[int, ...]]
    scores: list[float]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    # The vocabulary's shares differ in size, and are an embedding's too.
    folder = tmp_path_factory.mktemp("saved") / "model"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = save_model(folder, "qwen3", vocab_size=511, tie_word_embeddings=True, **sizes)
    with LlamaGPU(str(model), prefer_gpu=False, quant_type="fp32", engine=ENGINE) as one:
        return Alone(model, _answers(one._client), _scores(one._client))


@pytest.mark.parametrize(("tensor_size", "num_stages"), [(2, 1), (1, 2)], ids=["tensor", "stages"])
def test_two_ranks_say_what_one_process_says(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, tensor_size: int, num_stages: int
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    spans = [range(0, 1), range(1, 2)] if num_stages == 2 else None
    sizes = {"tensor_size": tensor_size, "num_stages": num_stages}
    group = start(files_of(alone.model), spans=spans, uses_kernels=True, **sizes)
    try:
        client = group.client
        why_several = "ranks add up what each of them has" if tensor_size == 2 else "the device is no NVIDIA GPU"
        assert f"captured graphs of fused kernels, several for one row: {why_several}" in str(group.status)
        assert _answers(client) == alone.answers
        assert _scores(client) == pytest.approx(alone.scores, abs=1e-4)
        assert len({rank.weight_bytes for rank in group.built.ranks}) <= 2
        figures = group.built.runner.figures
        assert len(figures.busy_s) == num_stages
        assert all(0 < busy_s < figures.wall_s for busy_s in figures.busy_s)
        assert client.stats().kv_blocks_used == 0
        generation = client.submit([5, 6], SamplingParams(max_tokens=400, ignore_eos=True))
        next(iter(generation))
        os.kill(group.built.ranks[1].process_id, signal.SIGKILL)
        with pytest.raises(EngineStoppedError, match="rank 1 of 2.* was killed"):
            for _ in client.submit([5, 6], SamplingParams(max_tokens=400, ignore_eos=True)):
                pass
    finally:
        group.client.stop()
