"""Loading quantised: from files, from the cache, from a folder of quantised weights; peak memory; damaged entries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from matrices_in_memory import MatricesInMemory
from model_folders import save_preset

from workbench.errors import ConfigError, ModelFormatError
from workbench.models import Catalogue, load_model
from workbench.models.quantized_load import manifest_of, source_facts
from workbench.quantize import QuantizationCache, QuantizationConfig
from workbench.quantize.packed_folder import save_packed

INT8 = QuantizationConfig("int8", dynamic=False, preserve_accuracy=False)
IDS = torch.tensor([[5, 6, 7, 8]])


def _load(path, config=INT8, cache=None):
    return load_model(Catalogue().resolve(str(path)), device="cpu", dtype="fp32", quantization=config, cache=cache)


def _logits(loaded) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.module(IDS).logits


@pytest.mark.parametrize("config", [INT8, QuantizationConfig("int4"), QuantizationConfig("static")])
def test_the_second_load_comes_from_the_cache(tiny_model_folder: Path, tmp_path: Path, config) -> None:
    cache = QuantizationCache(tmp_path)
    first, second = (_load(tiny_model_folder, config, cache) for _ in range(2))
    assert (first.quantized.from_cache, second.quantized.from_cache) == (False, True)
    assert torch.equal(_logits(first), _logits(second))
    assert first.weight_bytes == second.weight_bytes < 0.6 * first.quantized.original_bytes
    assert first.spec == second.spec
    plain = load_model(Catalogue().resolve(str(tiny_model_folder)), device="cpu", dtype="fp32")
    assert first.spec.num_parameters == plain.spec.num_parameters


def test_a_damaged_entry_is_rebuilt(tiny_model_folder: Path, tmp_path: Path) -> None:
    cache = QuantizationCache(tmp_path)
    first = _load(tiny_model_folder, cache=cache)
    (entry,) = cache.entries()
    weights = entry.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"damaged!")
    again = _load(tiny_model_folder, cache=cache)
    assert not again.quantized.from_cache
    assert torch.equal(_logits(first), _logits(again))
    assert _load(tiny_model_folder, cache=cache).quantized.from_cache


def test_changed_files_are_quantised_again(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    cache = QuantizationCache(tmp_path / "cache")
    _load(folder, cache=cache)
    (folder / "model.safetensors").touch()
    assert not _load(folder, cache=cache).quantized.from_cache


def test_a_cache_that_cannot_be_written_does_not_stop_a_load(tiny_model_folder: Path, tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    loaded = _load(tiny_model_folder, cache=QuantizationCache(tmp_path / "file" / "cache"))
    assert _logits(loaded).isfinite().all()
    assert "are not kept: cannot write to the cache" in caplog.text


def test_a_folder_of_quantised_weights_loads_by_its_name(tiny_model_folder: Path, tmp_path: Path) -> None:
    files = Catalogue().resolve(str(tiny_model_folder))
    made = _load(tiny_model_folder)
    out = tmp_path / "out"
    out.mkdir()
    save_packed(made.module, manifest_of(made, source_facts(files)), out, tiny_model_folder)
    loaded = _load(out, None)
    assert torch.equal(_logits(made), _logits(loaded))
    assert loaded.quantized.config == INT8
    with pytest.raises(ConfigError, match="holds weights as int8"):
        _load(out, QuantizationConfig("int4"))
    (out / "model.safetensors").write_bytes((out / "model.safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFormatError, match="checksum"):
        _load(out, None)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_the_full_model_is_never_in_memory(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_preset("tiny", tmp_path / "model")
    matrices = MatricesInMemory(monkeypatch)
    loaded = _load(folder, QuantizationConfig(kind))
    largest = 512 * 64 * 4
    assert largest <= matrices.peak_bytes <= 2 * largest < 0.5 * loaded.quantized.original_bytes
