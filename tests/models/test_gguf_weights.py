"""Packed weights of a .gguf file: the numbers that transformers reads from it, and clear words where there are none."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_gguf import write_tiny_gguf

from workbench import LlamaGPU
from workbench.errors import ConfigError
from workbench.models import Catalogue, load_model
from workbench.models.gguf_weights import _PACKED_TYPES
from workbench.quantize.memory import storage_bytes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder / "home"))
        yield Catalogue().resolve(write_tiny_gguf(folder / "tiny.gguf"))


def test_the_packed_model_is_the_converted_one(files) -> None:
    packed = load_model(files, device="cpu", dtype="fp32", keep_packed=True)
    plain = load_model(files, device="cpu", dtype="fp32")
    exact = plain.module.state_dict()
    for name, module in packed.module.named_modules():
        if hasattr(module, "weight_groups"):
            assert torch.equal(module.weight_groups.rows(slice(None)), exact[f"{name}.weight"]), name
    assert packed.weight_bytes == storage_bytes(packed.module) < plain.weight_bytes / 4
    assert packed.spec == plain.spec
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.inference_mode():
        actual, expected = (model.module(ids).logits for model in (packed, plain))
    # torch's 4-bit operator computes in bf16.
    assert (actual - expected).norm() / expected.norm() < 0.05


def test_the_engine_runs_it(files) -> None:
    with LlamaGPU(files.source.location, prefer_gpu=False, quant_type="gguf-native") as llm:
        assert llm.get_backend_info()["quantization"] == "gguf"
        assert len(llm.submit([5, 6, 7], max_tokens=4, ignore_eos=True).result().token_ids) == 4


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_every_packed_type_is_read_without_rounding(kind: str) -> None:
    type_id = gguf.GGMLQuantizationType[kind]
    values = np.random.default_rng(0).standard_normal((48, 96), dtype=np.float32)
    blocks = gguf.quants.quantize(values, type_id)
    weight = _PACKED_TYPES[kind](blocks.reshape(48, 3, -1))
    assert np.array_equal(weight.rows(slice(None)).numpy(), gguf.quants.dequantize(blocks, type_id))
    assert np.array_equal(weight.rows(torch.tensor([7, 0])).numpy(), gguf.quants.dequantize(blocks, type_id)[[7, 0]])


def test_a_model_without_such_a_file_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="packed weights of a .gguf file"):
        LlamaGPU(tiny_model_folder, prefer_gpu=False, quant_type="gguf")
