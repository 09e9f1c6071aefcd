"""The cache of quantised models: found again, checked, bounded, and honest when the disk does not take it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workbench.errors import CacheError, ConfigError, ModelFormatError
from workbench.models.random_model import make_random_model
from workbench.quantize import QuantizationCache, QuantizationConfig, QuantizationManager
from workbench.quantize.packed_folder import MANIFEST_NAME, read_manifest

IDS = torch.tensor([[5, 6, 7, 8]])
PROMPTS = [list(range(40))]
CONFIGS = {
    "int8": QuantizationConfig("int8", dynamic=False),
    "int4": QuantizationConfig("int4"),
    "dynamic": QuantizationConfig("dynamic"),
    "static": QuantizationConfig("static"),
    "nf4": QuantizationConfig("nf4"),
    "fp8": QuantizationConfig("fp8"),
    "bf16": QuantizationConfig("bf16"),
}


def _quantized(kind: str = "int8", preset: str = "tiny-tied"):
    model = make_random_model(preset, device="cpu", dtype="fp32").module
    return QuantizationManager(CONFIGS[kind]).quantize_model(model, prompts=PROMPTS)


@pytest.fixture
def cache(tmp_path: Path) -> QuantizationCache:
    return QuantizationCache(tmp_path / "cache")


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("preset", ["tiny-tied", "tiny-qwen3"])
def test_a_model_comes_back_as_it_was(cache: QuantizationCache, kind: str, preset: str) -> None:
    model = _quantized(kind, preset)
    cache.cache_model("org/name", model, CONFIGS[kind])
    again = cache.load_cached_model("org/name", kind)
    with torch.inference_mode():
        assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert type(again.lm_head) is type(model.lm_head)
    if preset == "tiny-tied" and kind not in ("bf16", "nf4"):
        assert next(again.lm_head.buffers()) is next(again.model.embed_tokens.buffers())
    assert not any(parameter.is_meta for parameter in again.parameters())
    assert cache.load_cached_model("org/name", "gguf") is None
    assert cache.load_cached_model("other", kind) is None


def test_statistics_and_removal(cache: QuantizationCache) -> None:
    assert cache.get_cache_stats() == {
        "total_models": 0,
        "cache_size": 0,
        "max_size": cache.max_bytes / 1024**2,
        "models": [],
    }
    assert cache.clear() == 0
    for kind in ("int8", "int4"):
        cache.cache_model("a", _quantized(kind), CONFIGS[kind])
    cache.cache_model("b", _quantized(), CONFIGS["int8"])
    stats = cache.stats()
    assert stats["total_models"] == len(cache.cache_index) == 3
    assert stats["cache_size"] == pytest.approx(sum(row["size"] for row in stats["models"]))
    index = next(entry for entry in cache.cache_index.values() if entry["quantization_type"] == "int4")
    assert index["config"]["preserve_accuracy"] is True
    assert Path(index["path"]).is_dir()
    assert cache.remove("a", "int4") > 0
    assert {row["model_name"] for row in cache.stats()["models"]} == {"a", "b"}
    assert cache.remove("a") > 0
    assert cache.remove("a") == cache.remove("../b") == 0
    assert cache.clear() > 0
    assert cache.stats()["total_models"] == 0


def test_the_key_is_what_it_was_made_of_and_how(cache: QuantizationCache, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.cache_model("a", _quantized(), CONFIGS["int8"])
    manifest = read_manifest(folder)
    source = {"model": "a"}
    how = {"dtype": "fp32", "source": source}
    assert cache.find("a", CONFIGS["int8"], **how).folder == folder
    assert cache.find("b", CONFIGS["int8"], **how) is None
    assert cache.find("a", replace(CONFIGS["int8"], per_channel=False), **how) is None
    assert cache.find("a", CONFIGS["int8"], dtype="bf16", source=source) is None
    assert cache.find("a", CONFIGS["int8"], dtype="fp32", source={"model": "a", "revision": "2"}) is None
    monkeypatch.setattr("workbench.quantize.cache_entry.version", lambda package: "0")
    assert cache.find("a", CONFIGS["int8"], **how) is None
    assert manifest.config == CONFIGS["int8"]


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "gone"])
def test_a_damaged_entry_is_dropped_and_never_served(cache: QuantizationCache, damage: str) -> None:
    folder = cache.cache_model("a", _quantized(), CONFIGS["int8"])
    weights = folder / "model.safetensors"
    if damage == "flip":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "cut":
        os.truncate(weights, weights.stat().st_size // 2)
    elif damage == "manifest":
        (folder / MANIFEST_NAME).write_text("{")
    else:
        weights.unlink()
    assert cache.find("a", CONFIGS["int8"], dtype="fp32", source={"model": "a"}) is None
    assert not folder.exists()
    assert cache.load_cached_model("a", "int8") is None


def test_a_manifest_of_another_format_is_refused(cache: QuantizationCache) -> None:
    folder = cache.cache_model("a", _quantized(), CONFIGS["int8"])
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ModelFormatError, match="another format"):
        read_manifest(folder)


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    now_s = iter(range(1000, 2000))
    cache = QuantizationCache(tmp_path, clock=lambda: float(next(now_s)))
    model = _quantized()
    for name in ("a", "b"):
        cache.cache_model(name, model, CONFIGS["int8"])
        cache.load_cached_model(name, "int8")
    size = sum(entry.num_bytes for entry in cache.entries()) // 2
    cache.load_cached_model("a", "int8")
    cache.max_bytes = int(2.5 * size)
    cache.cache_model("c", model, CONFIGS["int8"])
    assert {entry.name for entry in cache.entries()} == {"a", "c"}
    cache.max_bytes = size // 2
    with pytest.raises(CacheError, match="limit is"):
        cache.cache_model("d", model, CONFIGS["int8"])
    assert not (tmp_path / ".building").exists()


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write to the cache .*WORKBENCH_HOME"):
        QuantizationCache(tmp_path / "file" / "cache").cache_model("a", _quantized(), CONFIGS["int8"])
    cache = QuantizationCache(tmp_path / "cache")
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage())
    with pytest.raises(CacheError, match="100 are free"):
        cache.cache_model("a", _quantized(), CONFIGS["int8"])


class _Usage:
    free = 100


def test_what_cannot_be_built_again_is_refused(cache: QuantizationCache) -> None:
    with pytest.raises(ConfigError, match="no transformers config"):
        cache.cache_model("a", torch.nn.Sequential(torch.nn.Linear(8, 8)), CONFIGS["int8"])
    with pytest.raises(ConfigError, match="max_bytes"):
        QuantizationCache(max_bytes=0)
