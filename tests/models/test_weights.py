from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedModel, Qwen3VLMoeForConditionalGeneration

from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.models.random_model import preset_config
from workbench.models.weights import matches_shell
from workbench.safetensors_header import TensorEntry
from workbench.shell import build_shell


def _entries(shell: PreTrainedModel, dtype: str = "BF16") -> dict[str, TensorEntry]:
    """Headers as a file would have them that holds just the shell's tensors."""
    return {
        name: TensorEntry(name, Path("model.safetensors"), dtype, tuple(tensor.shape), 0, tensor.nbytes)
        for name, tensor in shell.state_dict().items()
    }


@pytest.fixture
def shell() -> PreTrainedModel:
    return build_shell(preset_config("tiny", make_byte_tokenizer(512)), torch.bfloat16, None)


def test_the_same_names_match(shell: PreTrainedModel) -> None:
    entries = _entries(shell)

    assert matches_shell(shell, entries, torch.bfloat16)
    assert matches_shell(shell, {**entries, "model.rotary_emb.inv_freq": entries["lm_head.weight"]}, torch.bfloat16)
    del entries["lm_head.weight"]
    assert not matches_shell(shell, entries, torch.bfloat16)


def test_a_tied_head_need_not_be_there() -> None:
    shell = build_shell(preset_config("tiny-tied", make_byte_tokenizer(512)), torch.bfloat16, None)
    entries = _entries(shell)
    del entries["lm_head.weight"]

    assert matches_shell(shell, entries, torch.bfloat16)


def test_packed_weights_are_left_to_transformers(shell: PreTrainedModel) -> None:
    assert not matches_shell(shell, _entries(shell, "F8_E4M3"), torch.bfloat16)

    shell.config.quantization_config = {"quant_method": "awq"}
    assert not matches_shell(shell, _entries(shell), torch.bfloat16)


def test_parts_that_stay_in_float32_are_left_to_transformers(shell: PreTrainedModel) -> None:
    shell._keep_in_fp32_modules_strict = {"norm"}

    assert not matches_shell(shell, _entries(shell), torch.bfloat16)
    assert matches_shell(shell, _entries(shell), torch.float32)


def test_weights_turned_around_under_the_same_name_are_left_to_transformers() -> None:
    config = AutoConfig.for_model("qwen3_vl_moe")
    config.text_config.num_hidden_layers = config.vision_config.depth = 1
    with torch.device("meta"):
        shell = Qwen3VLMoeForConditionalGeneration(config)

    assert not matches_shell(shell, _entries(shell), torch.float32)
