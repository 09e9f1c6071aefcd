"""Weights for the GPU's own kernels, packed while a model is read: as they are when packed afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matrices_in_memory import MatricesInMemory
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.backends import get_backend
from workbench.engine import low_bit_choice, runner_choice
from workbench.engine.attention import LayerShape
from workbench.engine.build import _warm_up_tokens
from workbench.engine.config import EngineConfig
from workbench.engine.fused_weights import FusedWeights
from workbench.engine.launch import EngineLaunch
from workbench.engine.low_bit_method import LowBitMethod
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.engine.runner_choice import plan_runner
from workbench.errors import BackendUnavailableError
from workbench.models import Catalogue, load_model
from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.planner.model_shape import read_model_shape
from workbench.planner.weight_bytes import total_bytes
from workbench.progress import no_progress
from workbench.quantize import QuantizationCache, parse_quant_type

VOCAB = 272
IDS = torch.tensor([[5, 6, 7, 8]])


def make_folder(folder: Path, *, is_tied: bool, hidden: int = 128) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=hidden, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, tie_word_embeddings=is_tied,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    make_byte_tokenizer(VOCAB).hf.save_pretrained(folder)
    return folder


def load(folder: Path, kind: LowBitKind | None, cache: QuantizationCache | None = None):
    method = None if kind is None else LowBitMethod(kind)
    config = None if method is None else method.config
    files = Catalogue().resolve(str(folder))
    return load_model(files, device="cpu", dtype="bf16", quantization=config, cache=cache, method=method)


def tensors_of(weights: FusedWeights) -> list[torch.Tensor]:
    named = [weights.embedding, *weights._multiplied()]
    parts = [(each.data, each.scales) if isinstance(each, LowBitWeight) else (each,) for each in named]
    return [tensor for part in parts for tensor in part]


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("kind", LowBitKind)
def test_packed_while_read_is_packed_afterwards(kind: LowBitKind, is_tied: bool, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", is_tied=is_tied)
    cache = QuantizationCache(tmp_path / "cache")
    expected = FusedWeights.take(load(folder, None).module, kind)
    first, second = (load(folder, kind, cache) for _ in range(2))
    assert (first.quantized.from_cache, second.quantized.from_cache) == (False, True)
    with torch.inference_mode():
        logits = [loaded.module(IDS).logits for loaded in (first, second)]
    assert torch.equal(*logits) and logits[0].isfinite().all()
    for loaded in (first, second):
        taken = FusedWeights.take(loaded.module)
        assert taken.num_bytes == expected.num_bytes
        assert 0 <= loaded.weight_bytes - taken.num_bytes < 1000  # tables of the rotation
        assert (taken.head is taken.embedding) == (expected.head is expected.embedding)
        for one, other in zip(tensors_of(taken), tensors_of(expected), strict=True):
            assert one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))
        assert not any(buffer.numel() for name, buffer in loaded.module.named_buffers() if "_proj.data" in name)


def test_of_the_original_one_matrix_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "model", is_tied=False)
    matrices = MatricesInMemory(monkeypatch)
    load(folder, LowBitKind.INT4)
    largest = VOCAB * 128 * 2
    assert largest <= matrices.peak_bytes <= 2 * largest


def test_what_it_keeps_is_apart_from_torchs_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", is_tied=True)
    cache, method = QuantizationCache(tmp_path / "cache"), LowBitMethod(LowBitKind.INT8)
    load(folder, LowBitKind.INT8, cache)
    (entry,) = cache.entries()
    # The same config, for torch's operators.
    files = Catalogue().resolve(str(folder))
    plain = load_model(files, device="cpu", dtype="bf16", quantization=method.config, cache=cache)
    assert not plain.quantized.from_cache
    assert len(cache.entries()) == 2
    cache.remove(next(other.folder.name for other in cache.entries() if other.folder != entry.folder))
    assert cache.load_cached_model(entry.name, "int8") is None
    assert load(folder, LowBitKind.INT8, cache).quantized.from_cache


def test_it_says_which_models_its_groups_do_not_divide(tmp_path: Path) -> None:
    module = load(make_folder(tmp_path / "model", is_tied=True, hidden=64), None).module
    assert LowBitMethod(LowBitKind.INT8).obstacle(module) is None
    assert LowBitMethod(LowBitKind.INT4).obstacle(module).startswith("model.layers.0.self_attn.q_proj has 64 columns")


def test_a_model_packed_for_torchs_operators_runs_on_them(tmp_path: Path) -> None:
    """Where the engine's kernels cannot, they are refused only to a model that only they could run."""
    folder = make_folder(tmp_path / "model", is_tied=True)
    config = LowBitMethod(LowBitKind.INT8).config
    files = Catalogue().resolve(str(folder))
    for_torch = load_model(files, device="cpu", dtype="bf16", quantization=config).module
    layers = {0: LayerShape(num_kv_heads=2, key_dim=32, value_dim=32)}
    assert plan_runner(for_torch, layers, "cpu", "int8").weights is None
    for module in (load(folder, None).module, load(folder, LowBitKind.INT8).module):
        with pytest.raises(BackendUnavailableError, match="the device is a CPU"):
            plan_runner(module, layers, "cpu", "int8")


@pytest.mark.parametrize(
    ("low_bit", "hidden", "kind"),
    [("int4", 128, "LowBitLinear"), ("int4", 64, "Int4Linear"), ("fp8", 64, "LowBitLinear")],
)
def test_a_launch_packs_for_the_engine_what_its_kernels_take(
    low_bit: str, hidden: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "model", is_tied=True, hidden=hidden)
    # As on a GPU that has the kernels.
    for module in (low_bit_choice, runner_choice):
        monkeypatch.setattr(module, "kernels_unavailable_reason", lambda device, layers: None)
    launch = EngineLaunch(
        files=Catalogue().resolve(str(folder)),
        backend_name="cpu",
        device_index=0,
        dtype="bf16",
        quantization=parse_quant_type(low_bit).config,
        low_bit=low_bit,
        cache=QuantizationCache(tmp_path / "cache"),
        config=EngineConfig(),
    )
    for _ in range(2):
        loaded = launch.load(no_progress, get_backend("cpu"))
        assert type(loaded.module.model.layers[0].self_attn.q_proj).__name__ == kind
    assert loaded.quantized.from_cache
    plan = plan_runner(loaded.module, {0: LayerShape(2, hidden // 4, hidden // 4)}, "cpu", low_bit)
    assert (plan.weights is not None) == (kind == "LowBitLinear")


def test_the_warm_up_has_no_more_tokens_than_the_cache() -> None:
    assert _warm_up_tokens(EngineConfig(kv_cache_tokens=2048), 131072, on_gpu=True) == 2048
    assert _warm_up_tokens(EngineConfig(), 131072, on_gpu=True) == 8192
    assert _warm_up_tokens(EngineConfig(kv_cache_tokens=10**6), 4096, on_gpu=True) == 4096
    assert _warm_up_tokens(EngineConfig(), 131072, on_gpu=False) == 1


def test_a_plan_counts_what_a_gpu_will_hold() -> None:
    """The embedded model's 576 columns are no multiple of 128, so its int4 is that of torch's operators there: 0.353 of
    the bf16 bytes, as measured on one."""
    shares = {}
    for model in ("random:smollm2-135m", "random:llama-3.2-1b"):
        shape = read_model_shape(model)
        in_bf16, in_int4 = (
            total_bytes(shape, parse_quant_type(name), "bf16", on_gpu=True) for name in ("bf16", "int4")
        )
        shares[model] = round(in_int4 / in_bf16, 3)
    assert shares == {"random:smollm2-135m": 0.353, "random:llama-3.2-1b": 0.31}
