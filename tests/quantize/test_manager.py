"""The manager on small real transformers models: sizes, names, statistics, what is left alone, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from workbench.errors import ConfigError
from workbench.models.random_model import make_random_model
from workbench.quantize.layer_error import pick_worst

PROMPTS = [list(range(40))]


@pytest.fixture
def tiny():
    return make_random_model("tiny", device="cpu", dtype="fp32").module


def _manager(kind: str = "int8", **flags):
    from workbench.quantize import QuantizationConfig, QuantizationManager

    return QuantizationManager(QuantizationConfig(kind, **flags))


def test_the_documented_snippet(tiny) -> None:
    from quantization import QuantizationConfig, QuantizationManager

    config = QuantizationConfig(quantization_type="int8", dynamic=True)
    manager = QuantizationManager(config)
    before = tiny.lm_head.weight.clone()
    quantized = manager.quantize_model(tiny, "name")
    assert manager.get_quantized_model("name") is quantized
    assert torch.equal(tiny.lm_head.weight, before)
    assert type(tiny.lm_head) is nn.Linear
    assert quantized(torch.tensor([[1, 2]])).logits.shape == (1, 2, 512)
    entry = manager.quantized_models["name"]
    assert entry["quantized_size"] < 0.4 * entry["original_size"]
    assert entry["accuracy_loss"] is None


@pytest.mark.parametrize(
    ("kind", "flags", "ratio", "most_loss"),
    [
        ("int8", {"dynamic": False, "preserve_accuracy": False}, 0.25, 0.02),
        ("dynamic", {"preserve_accuracy": False}, 0.25, 0.2),
        ("int4", {"preserve_accuracy": False}, 0.156, 2.0),
        ("nf4", {"preserve_accuracy": False}, 0.14, 2.0),
        ("fp8", {}, 0.25, 0.2),
        ("static", {}, 0.25, 0.4),
        ("fp16", {}, 0.5, 0.001),
        ("bf16", {}, 0.5, 0.02),
    ],
)
@pytest.mark.parametrize("preset", ["tiny", "tiny-tied", "tiny-qwen3"])
def test_each_method_saves_what_the_arithmetic_says(preset, kind, flags, ratio, most_loss) -> None:
    model = make_random_model(preset, device="cpu", dtype="fp32").module
    manager = _manager(kind, **flags)
    manager.quantize_model(model, "a", prompts=PROMPTS)
    stats = manager.get_quantization_stats("a")
    # Scales, norms and the int4 layout's table weigh more in a model this small.
    assert ratio <= stats["quantized_size"] / stats["original_size"] < ratio + 0.1
    assert stats["memory_saved"] == pytest.approx(stats["original_size"] - stats["quantized_size"])
    assert 0 <= stats["accuracy_loss"] < most_loss
    assert stats["quantization_type"] == kind


def test_in_place_changes_the_model_and_a_copy_leaves_it_alone() -> None:
    model = make_random_model("tiny-tied", device="cpu", dtype="fp32").module.requires_grad_(True)
    for kind in ("bf16", "int4"):
        copied = _manager(kind).quantize_model(model)
        assert copied is not model
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model.config.dtype != torch.bfloat16
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert _manager("int4", preserve_accuracy=False).quantize_model(model, in_place=True) is model
    # The tied table and head are one packed weight.
    assert model.lm_head.packed is model.model.embed_tokens.packed


def test_without_memory_efficient_the_table_and_its_head_stay() -> None:
    model = make_random_model("tiny-tied", device="cpu", dtype="fp32").module
    quantized = _manager("int8", memory_efficient=False).quantize_model(model)
    assert type(quantized.lm_head) is nn.Linear
    assert quantized.lm_head.weight is quantized.model.embed_tokens.weight
    assert type(quantized.model.layers[0].mlp.up_proj) is not nn.Linear


@pytest.mark.parametrize("kind", ["int8"])
def test_preserve_accuracy_keeps_the_layer_whose_output_is_worst(tiny, kind: str) -> None:
    with torch.no_grad():
        # One huge number in every row takes the whole range of the others.
        tiny.model.layers[1].self_attn.k_proj.weight[:, ::16] *= 100
    manager = _manager(kind)
    quantized = manager.quantize_model(tiny, "a")
    assert (
        manager.quantized_models["a"]["kept_layers"]
        == {
            "int8": ("model.layers.1.self_attn.k_proj",),
        }[kind]
    )
    kept = type(quantized.model.layers[1].self_attn.k_proj).__name__
    assert kept == {"int8": "Linear"}[kind]
    careless = _manager(kind, preserve_accuracy=False)
    careless.quantize_model(tiny, "a")
    assert "model.layers.1.self_attn.k_proj" not in careless.quantized_models["a"]["kept_layers"]


def test_few_layers_are_kept() -> None:
    sizes = dict.fromkeys("abcdefghij", 10)
    errors = {name: 0.1 for name in sizes} | {"a": 0.9, "b": 0.8}
    assert pick_worst(errors, sizes | {"big": 190}) == {"a"}
    assert pick_worst(errors, sizes) == frozenset()
    assert pick_worst({}, {}) == frozenset()


def test_int4_holds_in_int8_what_its_layout_cannot(tiny) -> None:
    tiny.model.layers[0].mlp.gate_proj = nn.Linear(64, 130, bias=True)
    tiny.model.layers[0].mlp.up_proj = nn.Linear(64, 130)
    tiny.model.layers[0].mlp.down_proj = nn.Linear(130, 64)
    manager = _manager("int4", preserve_accuracy=False)
    quantized = manager.quantize_model(tiny, "a")
    mlp = quantized.model.layers[0].mlp
    assert {type(layer).__name__ for layer in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)} == {"Int8Linear"}
    assert len(manager.quantized_models["a"]["kept_layers"]) == 3
    assert quantized(torch.tensor([[1, 2]])).logits.isfinite().all()


def test_statistics_over_several_models(tiny) -> None:
    manager = _manager("bf16")
    assert manager.get_overall_stats() == {
        "total_models": 0,
        "memory_saved": 0,
        "accuracy_loss": None,
        "quantization_times": [],
        "avg_quantization_time": 0.0,
    }
    assert manager.get_quantization_stats("x") == {}
    assert manager.get_quantized_model("x") is None
    for name in ("a", "b", "b"):
        manager.quantize_model(tiny, name, prompts=PROMPTS)
    stats = manager.get_overall_stats()
    assert stats["total_models"] == len(stats["quantization_times"]) == 2
    assert stats["memory_saved"] == pytest.approx(2 * manager.get_quantization_stats("a")["memory_saved"])
    assert stats["accuracy_loss"] > 0


def test_a_type_that_is_not_available_says_why_and_lists_what_works(tiny) -> None:
    with pytest.raises(
        ConfigError, match="'gguf' is not available on cpu: .*file.*int8, int4, dynamic, static, nf4, fp8"
    ):
        _manager("gguf").quantize_model(tiny)


def test_static_is_calibrated_and_refuses_to_guess(tiny) -> None:
    with pytest.raises(ConfigError, match="calibrated on texts and there are none"):
        _manager("static").quantize_model(tiny)
    for symmetric in (True, False):
        manager = _manager("static", symmetric=symmetric, preserve_accuracy=False)
        quantized = manager.quantize_model(tiny, "a", prompts=PROMPTS)
        assert type(quantized.model.layers[0].mlp.up_proj).__name__ == "StaticInt8Linear"
        assert manager.get_quantization_stats("a")["accuracy_loss"] < 0.3
    assert quantized.model.layers[0].mlp.down_proj.activation[1] != 0


def test_what_cannot_be_quantised_is_refused(tiny) -> None:
    with pytest.raises(ConfigError, match="no layer to quantise"):
        _manager("int8").quantize_model(nn.LayerNorm(8))
    with pytest.raises(ConfigError, match="no weights"):
        _manager("int8").quantize_model(nn.ReLU())
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        _manager("int8").quantize_model(tiny, prompts=["text"])
    with pytest.raises(ConfigError, match="prompts="):
        _manager("int8").quantize_model(tiny, prompts=[])
    with torch.no_grad():
        tiny.lm_head.weight[0, 0] = 1e6
    with pytest.raises(ConfigError, match="lm_head.weight .* use bf16"):
        _manager("fp16").quantize_model(tiny, in_place=True)
    assert tiny.model.norm.weight.dtype == torch.float32


def test_a_plain_module_works_too() -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).train()
    quantized = _manager("int4").quantize_model(model)
    assert model.training
    assert quantized(torch.randn(3, 64)).shape == (3, 64)
