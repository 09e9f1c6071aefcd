"""The embedded model: quality within bounds, true sizes, and the engine running it."""

from __future__ import annotations

import pytest
import torch

from workbench import LlamaGPU
from workbench.errors import ConfigError
from workbench.quantize import QuantizationConfig, QuantizationManager
from workbench.quantize.quality import compare, token_logits
from workbench.quantize.samples import sample_ids


@pytest.fixture(scope="module")
def embedded(embedded_model_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(embedded_model_folder, dtype=torch.bfloat16)


# (type, flags, share of the bf16 weights, largest change of perplexity, mean KL, least top-1 agreement)
BOUNDS = [
    ("int8", {"dynamic": False, "preserve_accuracy": False}, 0.515, 0.012, 0.02, 0.9),
    ("int4", {}, 0.316, 0.06, 0.05, 0.83),
]


@pytest.mark.parametrize(("kind", "flags", "share", "perplexity", "kl", "agreement"), BOUNDS)
def test_quality_and_size(embedded, kind, flags, share, perplexity, kl, agreement) -> None:
    manager = QuantizationManager(QuantizationConfig(kind, **flags))
    quantized = manager.quantize_model(embedded, "m")
    entry = manager.quantized_models["m"]
    assert share - 0.02 < entry["quantized_size"] / entry["original_size"] < share
    samples = sample_ids(embedded, None, None)
    quality = compare(token_logits(embedded, samples), token_logits(quantized, samples), samples)
    assert entry["accuracy_loss"] == pytest.approx(quality.mean_kl)
    assert quality.perplexity_change < perplexity
    assert quality.mean_kl < kl
    assert quality.top1_agreement > agreement


@pytest.mark.parametrize(("quant_type", "share"), [("int8", 0.5), ("int4", 0.3132), ("dynamic", 0.5)])
def test_the_engine_runs_it(home_with_embedded_model, quant_type: str, share: float) -> None:
    with LlamaGPU("default", prefer_gpu=False, quant_type=quant_type, context_length=512) as llm:
        element_bytes = 4 if llm.dtype == "fp32" else 2
        # Groups keep their scales in bf16 whatever the model computes in.
        expected = share * 2 * llm.spec.num_parameters
        assert llm.weight_bytes == pytest.approx(expected, rel=0.03)
        assert llm.get_memory_usage()["weights_mb"] == pytest.approx(llm.weight_bytes / 1024**2)
        assert llm.weight_bytes < 0.6 * llm.spec.num_parameters * element_bytes
        assert llm.get_backend_info()["quantization"] == quant_type
        assert quant_type in repr(llm)
        assert llm.infer("The capital of France is", max_tokens=3).startswith(" Paris")


def test_an_unknown_quant_type_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="quant_type.*int8, int4, dynamic"):
        LlamaGPU("default", prefer_gpu=False, quant_type="int3")
