"""A bare model has the layout, the facts and the rotary tables of transformers' own class, and the same bytes."""

import json

import pytest
import torch
import transformers as hf
from model_folders import copy_folder, edit_json, save_preset

from workbench.models import Catalogue, load_model
from workbench.models.bare_config import read_bare_config
from workbench.models.bare_decoder import BareDecoder
from workbench.models.bare_load import load_bare_model

SIZES = dict(
    vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32, max_position_embeddings=256,
)  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama with biases": (hf.LlamaConfig, hf.LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM, {}),
    "stretched": (hf.LlamaConfig, hf.LlamaForCausalLM, {"rope_parameters": LLAMA3}),
    "linear": (
        hf.LlamaConfig,
        hf.LlamaForCausalLM,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_and_rotary_tables_are_those_of_transformers(name, tmp_path, tiny_model_folder):
    make_config, make_model, extra = MODELS[name]
    model = make_model(make_config(**SIZES, **extra))
    folder = copy_folder(tiny_model_folder, tmp_path / "model")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    config = read_bare_config(Catalogue().resolve(folder))
    bare = BareDecoder(config, torch.float32)
    assert bare.architecture == type(model).__name__

    def shapes(module):
        return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}

    assert shapes(bare) == shapes(model)
    positions = torch.arange(256).unsqueeze(0)
    for ours, theirs in zip(
        bare.model.rotary_emb(torch.zeros(1), position_ids=positions),
        model.model.rotary_emb(torch.zeros(1), position_ids=positions),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_weights_and_facts_are_those_of_the_ordinary_load(tmp_path):
    folder = save_preset("tiny", tmp_path / "model")
    files = Catalogue().resolve(folder)
    bare = load_bare_model(files, read_bare_config(files), dtype="bf16")
    plain = load_model(files, device="cpu", dtype="bf16")
    assert bare.is_bare and not plain.is_bare
    for fact in ("spec", "eos_token_ids", "generation_defaults", "dtype"):
        assert getattr(bare, fact) == getattr(plain, fact)
    weights = dict(plain.module.named_parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in bare.module.named_parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mistral"},
        {"hidden_act": "gelu"},
        {"rms_norm_eps": None},
        {"num_key_value_heads": None},
        {"tie_word_embeddings": None},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default"}},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_what_is_not_written_out_or_not_known_is_left_to_transformers(changes, tiny_model_folder, tmp_path):
    folder = copy_folder(tiny_model_folder, tmp_path / "model")
    assert read_bare_config(Catalogue().resolve(folder)) is not None
    edit_json(folder / "config.json", **changes)
    assert read_bare_config(Catalogue().resolve(folder)) is None


def test_the_rotary_fields_of_older_configs_are_read(tiny_model_folder, tmp_path):
    folder = copy_folder(tiny_model_folder, tmp_path / "model")
    fields = json.loads((folder / "config.json").read_text())
    rope = fields.pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps({**fields, "rope_theta": rope["rope_theta"], "rope_scaling": None}))
    assert read_bare_config(Catalogue().resolve(folder)).rope_parameters == {**rope, "rope_type": "default"}


def test_other_names_in_the_files_are_left_to_transformers(tiny_model_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_folder(tiny_model_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    files = Catalogue().resolve(folder)
    assert load_bare_model(files, read_bare_config(files), dtype="bf16") is None
