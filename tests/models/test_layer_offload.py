"""Layers in the host's memory. With one device this shows who holds what and that nothing changes; a GPU run shows the
rest (`benchmarks/engine.py --offload-layers`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from distributed.group_model import save_model

from workbench import EngineConfig, LlamaGPU
from workbench.errors import ConfigError
from workbench.models import Catalogue, load_model
from workbench.models.layer_offload import LayerOffload
from workbench.models.loaded_model import count_bytes

TOKENS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved") / "model", "llama", num_hidden_layers=4)


@pytest.mark.parametrize("name", ["folder", "random:tiny"])
def test_layers_that_stay_elsewhere_change_nothing(name: str, folder: Path) -> None:
    files = Catalogue().resolve(str(folder) if name == "folder" else name)
    plain = load_model(files, device="cpu", dtype="fp32")
    with torch.inference_mode():
        expected = plain.module(TOKENS).logits
    offload = LayerOffload(1)
    loaded = load_model(files, device="cpu", dtype="fp32", part=offload)
    last = plain.module.model.layers[-1]
    assert plain.weight_bytes - loaded.weight_bytes == count_bytes(last)
    offload.attach(loaded.module, "cpu")
    held = [parameter.is_meta for parameter in loaded.module.model.layers[-1].parameters()]
    assert all(held)
    assert not any(parameter.is_meta for parameter in loaded.module.model.layers[0].parameters())
    with torch.inference_mode():
        assert torch.equal(loaded.module(TOKENS).logits, expected)
        # Once more: what was copied is forgotten in between.
        assert torch.equal(loaded.module(TOKENS).logits, expected)


def test_what_cannot_be_is_refused(folder: Path) -> None:
    files = Catalogue().resolve(str(folder))
    with pytest.raises(ConfigError, match="cpu_offload_layers=5: the model has 4 layers"):
        load_model(files, device="cpu", dtype="fp32", part=LayerOffload(5))
    with pytest.raises(ConfigError, match="on a CPU every layer is in the host's memory"):
        LlamaGPU(str(folder), backend="cpu", engine=EngineConfig(cpu_offload_layers=1))
