"""Weights told from a config alone, held against what transformers makes of the same config."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.models import ModelSpec
from workbench.planner.config_weights import EXACT_FAMILIES, weights_from_config

_SMALL = {
    "vocab_size": 4096,
    # On the meta device size costs nothing; narrow ones would be made of biases.
    "hidden_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1280,
    "max_position_embeddings": 128,
}
_EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
_OF_FAMILY = {
    "gpt2": {"n_embd": 512, "n_layer": 3, "n_head": 8, "n_positions": 128, "n_inner": None, "vocab_size": 4096},
    "gpt_neox": {**_SMALL, "num_key_value_heads": 8},
    "opt": {**_SMALL, "num_key_value_heads": 8, "ffn_dim": 1280, "word_embed_proj_dim": 512},
    "falcon": {**_SMALL, "ffn_hidden_size": 1280, "num_key_value_heads": 8, "multi_query": False},
    "mixtral": {**_SMALL, **_EXPERTS},
    "qwen2_moe": {
        **_SMALL,
        "num_experts": 8,
        "moe_intermediate_size": 384,
        "shared_expert_intermediate_size": 768,
        "decoder_sparse_step": 1,
    },
    "qwen3_moe": {**_SMALL, "num_experts": 8, "moe_intermediate_size": 384, "head_dim": 64, "decoder_sparse_step": 1},
    "deepseek_v3": {
        **_SMALL,
        "num_key_value_heads": 8,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 384,
        "first_k_dense_replace": 1,
        "q_lora_rank": 192,
        "kv_lora_rank": 64,
        "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 64,
        "v_head_dim": 64,
    },
}
_FAMILIES = sorted({*EXACT_FAMILIES, *_OF_FAMILY, "phi", "gpt_neox", "falcon", "opt", "starcoder2", "olmo2", "gpt_oss"})


@pytest.mark.parametrize("family", _FAMILIES)
def test_the_total_is_that_of_the_model(family: str) -> None:
    fields = _OF_FAMILY.get(family, {**_SMALL, **({"num_local_experts": 8} if family == "gpt_oss" else {})})
    config = AutoConfig.for_model(family, **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    true_total = sum(parameter.numel() for parameter in model.parameters())
    made = {**config.to_dict(), "architectures": [type(model).__name__]}
    told = sum(weight.num_elements for weight in weights_from_config(ModelSpec.from_config(made), made))
    if family in EXACT_FAMILIES:
        assert told == true_total
    else:
        assert told == pytest.approx(true_total, rel=0.05), told / true_total
