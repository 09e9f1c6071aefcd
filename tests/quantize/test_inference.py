"""A quantised module continues texts by itself, without an engine: the documented `QuantizedInference`."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.errors import ConfigError, RequestError
from workbench.quantize import QuantizationConfig, QuantizationManager, QuantizedInference


@pytest.fixture(scope="module")
def quantized(tiny_model_folder):
    """(module, config) of a small model, int8."""
    config = QuantizationConfig("int8", dynamic=False, preserve_accuracy=False)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    return QuantizationManager(config).quantize_model(model, "tiny"), config


@pytest.fixture
def inference(quantized):
    return QuantizedInference(*quantized)


def test_it_continues_as_transformers_generate_does(inference, quantized, tiny_model_folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    ids = tokenizer("one two three", return_tensors="pt")
    answer = quantized[0].generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert inference.generate("one two three", max_tokens=6) == tokenizer.decode(answer, skip_special_tokens=True)


def test_options_go_to_generate(inference) -> None:
    beams = inference.generate("one two three", 6, num_beams=3)
    assert isinstance(beams, str)
    with pytest.raises(ValueError, match="no_such_option"):
        inference.generate("one", 4, no_such_option=1)


def test_performance_counts_what_was_generated(quantized) -> None:
    now_s = iter([10.0, 14.0])
    figures = QuantizedInference(*quantized, clock=lambda: next(now_s)).benchmark_performance(["one", "two three"], 5)
    assert figures["total_time"] == 4.0
    assert figures["total_prompts"] == 2
    assert figures["avg_time_per_prompt"] == 2.0
    assert figures["throughput"] == 0.5
    assert 2 <= figures["total_tokens"] <= 10
    assert figures["tokens_per_second"] == figures["total_tokens"] / 4.0
    module = quantized[0]
    stored = {tensor.data_ptr(): tensor.nbytes for tensor in [*module.parameters(), *module.buffers()]}
    assert figures["memory_usage"] * 1024**2 == pytest.approx(sum(stored.values()), rel=0.02)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "words"),
    [("", 5, "not empty"), (None, 5, "not empty"), ("one", 0, "at least 1"), ("one", True, "at least 1")],
)
def test_what_cannot_be_generated_is_refused(inference, prompt, max_tokens, words) -> None:
    with pytest.raises(RequestError, match=words):
        inference.generate(prompt, max_tokens)


def test_no_prompts_are_refused(inference) -> None:
    for prompts in ([], "one"):
        with pytest.raises(RequestError, match="non-empty list"):
            inference.benchmark_performance(prompts)


def test_it_needs_a_language_model_and_a_tokenizer(quantized) -> None:
    with pytest.raises(ConfigError, match="cannot generate"):
        QuantizedInference(nn.Linear(4, 4), quantized[1])
    from workbench.models.random_model import make_random_model

    without = QuantizedInference(make_random_model("tiny", device="cpu", dtype="fp32").module, quantized[1])
    with pytest.raises(ConfigError, match="tokenizer"):
        without.generate("one")
