"""The embedded model through the engine: what transformers' `generate` writes, and one text per seed in any batch."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from workbench import LlamaGPU
from workbench.engine import EngineConfig

_STORY = "A short story. The lighthouse keeper climbed the stairs every evening to light the lamp above the harbour. "
_CHAT = "You are a careful assistant who answers every question in one short and friendly sentence. Question: "
PROMPTS = [
    "The capital of France is",
    "1, 2, 3, 4,",
    "def add(a, b):\n    return",
    "Water boils at",
    "Wörter und Sätze:",
    "Q: How many legs has a spider?\nA:",
    "The quick brown fox jumps over",
    "SELECT name FROM",
    "Dear Sir or Madam,",
    "import numpy as",
    "0.5 + 0.25 =",
    *(_STORY + ending for ending in ("One night", "He never", "The sea", "A ship", "Then")),
    *(_CHAT + question for question in ("What is a cat?", "Why is the sky blue?", "Who wrote Hamlet?", "Is ice cold?")),
]
NUM_TOKENS = 6
ENGINES = {
    "prefix reuse": {"kv_cache_tokens": 4096},
    "no prefix reuse": {"kv_cache_tokens": 4096, "enable_prefix_caching": False},
    "preempting": {"kv_cache_tokens": 80, "block_size": 4},
}


@pytest.fixture(scope="module")
def generated(embedded_model_folder):
    """Token ids that transformers' greedy `generate` gives for each prompt, in fp32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_folder)
    module = AutoModelForCausalLM.from_pretrained(embedded_model_folder, dtype=torch.float32)
    answers = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        out = module.generate(**inputs, max_new_tokens=NUM_TOKENS, do_sample=False)
        answers.append(out[0, inputs.input_ids.shape[1] :].tolist())
    return answers


@contextmanager
def embedded_model(quant_type, **engine):
    config = EngineConfig(context_length=80, **engine)
    with LlamaGPU(quant_type=quant_type, prefer_gpu=False, engine=config) as llm:
        yield llm
        assert llm.stats().kv_blocks_used == 0


def tokens(generation):
    return list(generation.result().token_ids)


@pytest.mark.usefixtures("home_with_embedded_model")
@pytest.mark.parametrize("name", ENGINES)
def test_greedy_text_is_that_of_transformers_generate(name, generated):
    assert len(PROMPTS) == 20
    with embedded_model("fp32", num_threads=1, **ENGINES[name]) as llm:
        if name == "prefix reuse":
            alone = [tokens(llm.submit(prompt, max_tokens=NUM_TOKENS)) for prompt in PROMPTS]
            assert alone == generated
        at_once = [llm.submit(prompt, max_tokens=NUM_TOKENS) for prompt in PROMPTS]
        assert [tokens(generation) for generation in at_once] == generated
        stats = llm.stats()
    assert (stats.preemptions_total > 0) == (name == "preempting")
    assert (stats.prefix_hit_tokens_total > 0) == (name != "no prefix reuse")


@pytest.mark.usefixtures("home_with_embedded_model")
@pytest.mark.parametrize("quant_type", ["fp32", "bf16"])
def test_one_seed_gives_one_text_whatever_else_is_in_the_batch(quant_type):
    sampling = {"temperature": 1.0, "seed": 7, "max_tokens": 12, "ignore_eos": True}
    crowd_sampling = {"temperature": 1.2, "max_tokens": 20, "ignore_eos": True}
    with embedded_model(quant_type, kv_cache_tokens=768) as llm:
        alone = tokens(llm.submit(PROMPTS[0], **sampling))
        crowd = [llm.submit(prompt, **crowd_sampling) for prompt in PROMPTS[9:14]]
        crowded = tokens(llm.submit(PROMPTS[0], **sampling))
        [other.abort() for other in crowd]
        other_seed = tokens(llm.submit(PROMPTS[0], **sampling | {"seed": 8}))
        [other.result() for other in crowd]
    assert crowded == alone
    assert other_seed != alone
