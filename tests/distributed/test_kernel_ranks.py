"""Ranks that compute with the GPU's own kernels, here under Triton's interpreter: the same text, and the same end."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from distributed.group_model import ENGINE, files_of, save_model

from workbench import LlamaGPU
from workbench.backends import get_backend
from workbench.distributed.start import start_group_engine
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


def test_two_ranks_say_what_one_process_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The vocabulary's shares differ in size, and are an embedding's too.
    model = save_model(tmp_path / "model", "qwen3", vocab_size=511, tie_word_embeddings=True)
    with LlamaGPU(str(model), prefer_gpu=False, quant_type="fp32", engine=ENGINE) as one:
        expected, scored = _answers(one._client), _scores(one._client)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    group = start_group_engine(
        files_of(model),
        get_backend("cpu"),
        range(2),
        tensor_size=2,
        num_stages=1,
        dtype="fp32",
        config=ENGINE,
        uses_kernels=True,
    )
    try:
        client = group.engine.client
        assert "fused kernels" in str(group.engine.runner_status)
        assert _answers(client) == expected
        assert _scores(client) == pytest.approx(scored, abs=1e-4)
        assert len({rank.weight_bytes for rank in group.ranks}) <= 2
        assert client.stats().kv_blocks_used == 0
        generation = client.submit([5, 6], SamplingParams(max_tokens=400, ignore_eos=True))
        next(iter(generation))
        os.kill(group.ranks[1].process_id, signal.SIGKILL)
        with pytest.raises(EngineStoppedError, match="rank 1 of 2 was killed"):
            for _ in client.submit([5, 6], SamplingParams(max_tokens=400, ignore_eos=True)):
                pass
    finally:
        group.engine.client.stop()
