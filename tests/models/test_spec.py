from pathlib import Path
from typing import Any

import pytest
from model_folders import copy_folder, edit_json
from transformers import AutoConfig

from workbench.errors import ModelFormatError
from workbench.models import ModelSpec

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
}


def test_the_usual_fields() -> None:
    spec = ModelSpec.from_config(_LLAMA)

    assert spec == ModelSpec("LlamaForCausalLM", "llama", 2, 64, 4, 2, 16, 512, 2048)


def test_older_spellings_and_defaults() -> None:
    spec = ModelSpec.from_config(
        {"model_type": "gpt2", "n_layer": 3, "n_embd": 48, "n_head": 6, "vocab_size": 100, "n_positions": 32}
    )

    assert (spec.num_layers, spec.hidden_size, spec.num_heads, spec.num_kv_heads) == (3, 48, 6, 6)
    assert (spec.head_dim, spec.max_context, spec.architecture) == (8, 32, "gpt2")


def test_one_key_value_head_for_all_queries() -> None:
    falcon = {**_LLAMA, "num_key_value_heads": None, "multi_query": True}

    assert ModelSpec.from_config(falcon).num_kv_heads == 1
    assert ModelSpec.from_config({**falcon, "new_decoder_architecture": True, "num_kv_heads": 2}).num_kv_heads == 2


def test_the_text_part_of_a_larger_model() -> None:
    spec = ModelSpec.from_config({"model_type": "gemma3", "architectures": ["Gemma3"], "text_config": _LLAMA})

    assert (spec.architecture, spec.num_layers, spec.vocab_size) == ("Gemma3", 2, 512)


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({"sliding_window": 128}, 128),
        ({"sliding_window": None}, None),
        ({"sliding_window": 128, "use_sliding_window": False}, None),
        ({"sliding_window": 128, "layer_types": ["full_attention", "full_attention"]}, None),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"]}, 128),
    ],
)
def test_the_window_counts_where_a_layer_has_it(fields: dict[str, Any], window: int | None) -> None:
    assert ModelSpec.from_config(_LLAMA | fields).sliding_window == window


@pytest.mark.parametrize(
    ("rope", "max_context"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 2048),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256}, 2048),
        ({"rope_type": "longrope", "factor": 8.0}, 2048),
        ({"type": "linear", "factor": 4.0}, 8192),
        ({"rope_type": "dynamic", "factor": 2.0}, 4096),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        # Stated in full already, as newer configs do.
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
    ],
)
@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_the_context_includes_what_the_rotation_is_scaled_to(name: str, rope: dict[str, Any], max_context: int) -> None:
    assert ModelSpec.from_config(_LLAMA | {name: rope}).max_context == max_context


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number above 0, got '64'"),
        ({"vocab_size": 0}, "vocab_size must be a whole number above 0, got 0"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"num_key_value_heads": -2}, "num_key_value_heads must be a whole number above 0, got -2"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        ModelSpec.from_config(_LLAMA | fields)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3", "mistral", "phi3", "gpt_neox", "falcon"])
def test_config_objects_and_their_json_agree(family: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(family)
    config.save_pretrained(tmp_path)

    # What a family sets by default may be absent from the file; these never are.
    spec, from_file = ModelSpec.from_config(config), ModelSpec.from_folder(tmp_path)
    for field in ("num_layers", "hidden_size", "num_heads", "head_dim", "vocab_size", "max_context"):
        assert getattr(from_file, field) == getattr(spec, field), field


def test_parameters_are_counted_from_the_headers(tiny_model_folder: Path, tmp_path: Path) -> None:
    spec = ModelSpec.from_folder(tiny_model_folder)
    assert spec.num_parameters == 139_584
    assert not spec.tied_embeddings

    folder = copy_folder(tiny_model_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    edit_json(folder / "config.json", tie_word_embeddings=True)
    spec = ModelSpec.from_folder(folder)
    assert spec.num_parameters is None
    assert spec.tied_embeddings
