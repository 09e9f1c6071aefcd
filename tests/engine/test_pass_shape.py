"""On torch's operators too, an answer has the same numbers to the last bit, whatever else is computed."""

from __future__ import annotations

import pytest
import torch

from workbench import EngineConfig, LlamaGPU
from workbench.engine.pass_shape import PassShape, pass_shape

PROMPTS = [[(7 * i + n) % 140 + 5 for i in range(n)] for n in (3, 290, 18, 1, 130)]


@pytest.mark.parametrize(
    ("model", "quant_type"),
    [("random:tiny", "fp32"), ("random:tiny", "bf16"), ("random:tiny", "fp16"), ("random:tiny-gemma2", "fp32")],
)
def test_log_probabilities_are_the_same_alone_together_and_preempted(model: str, quant_type: str) -> None:
    def answers(kv_cache_tokens: int, at_once: bool) -> tuple[list[list[tuple[int, float]]], int]:
        engine = EngineConfig(
            context_length=384, kv_cache_tokens=kv_cache_tokens, enable_prefix_caching=False, native_kernels=False
        )
        with LlamaGPU(model, quant_type=quant_type, prefer_gpu=False, engine=engine) as llm:
            running = []
            for seed, prompt in enumerate(PROMPTS):
                running.append(
                    llm.submit(prompt, seed=seed, temperature=0.9, max_tokens=24, ignore_eos=True, logprobs=True)
                )
                if not at_once:
                    running[-1].result()
            told = [[(one.token_id, one.logprob) for one in generation.result().logprobs] for generation in running]
            return told, llm.stats().preemptions_total

    alone, _ = answers(4096, at_once=False)
    together, _ = answers(4096, at_once=True)
    assert together == alone
    tight, num_preemptions = answers(384, at_once=True)
    assert num_preemptions > 0
    assert tight == alone


def test_attention_reads_whole_blocks_and_what_it_must() -> None:
    fixed = pass_shape("cpu", torch.float32)
    for block_size in (4, 16, 48):
        for length in range(1, 1600, 7):
            for shape in (fixed, PassShape()):
                positions = shape.num_positions(length, block_size)
                assert positions >= length and positions % block_size == 0
            assert fixed.num_positions(length, block_size) < length + 64 + 256 + block_size
    assert pass_shape("cuda", torch.float32) == PassShape()
