"""A model computes with weights that were packed for a GPU's kernels, by torch's own operators."""

import pytest
import torch

from tests.engine.tiny_engine import build, logits_of, random_prompt
from workbench.engine.fused_weights import FusedWeights
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.engine.packed_module import compute_with


@pytest.mark.parametrize("kind", LowBitKind)
def test_logits_are_those_of_what_the_weights_stand_for(kind: LowBitKind, monkeypatch) -> None:
    # Some rows of a weight at a time, the last of them fewer.
    monkeypatch.setattr("workbench.engine.packed_module._MOST_ELEMENTS", 128 * 50)
    sizes = {"hidden_size": 128, "head_dim": 32, "attention_bias": False}
    dense, packed = build("qwen2", **sizes), build("qwen2", **sizes)
    for name, linear in dense.named_modules():
        if isinstance(linear, torch.nn.Linear) and not (name == "lm_head" and kind is LowBitKind.FP8):
            its_kind = LowBitKind.INT8 if name == "lm_head" else kind
            linear.weight.data = LowBitWeight.pack(linear.weight, its_kind).dense(torch.float32)
    if kind is not LowBitKind.FP8:
        table = dense.model.embed_tokens.weight
        table.data = LowBitWeight.pack(table, LowBitKind.INT8).dense(torch.float32)
    compute_with(packed, FusedWeights.take(packed, kind))
    prompt = random_prompt(9)
    torch.testing.assert_close(logits_of(packed, prompt), logits_of(dense, prompt), atol=1e-4, rtol=1e-4)


def test_weights_that_are_not_packed_stay() -> None:
    module = build("llama")
    prompt = random_prompt(5)
    expected = logits_of(module, prompt)
    compute_with(module, FusedWeights.take(module))
    torch.testing.assert_close(logits_of(module, prompt), expected)
