import gc
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import copy_folder, edit_header, edit_json, save_preset
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from workbench.backends import MemoryInfo, torch_dtype
from workbench.errors import ConfigError, LoadCancelled, ModelFormatError, OutOfMemoryError
from workbench.models import Catalogue, load_model
from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.progress import Progress

# One family each for: plain, tied, several norms and tables, merged projections, learned positions with a Conv1D
# layout, two kinds of layers, and experts that transformers stacks at loading.
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 16, "sliding_window": 16},
    "phi3": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "cohere2": {"sliding_window": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
}
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return copy_folder(tiny_model_folder, tmp_path / "model")


def _load(folder: Path, dtype: str = "fp32", **options: Any):
    flags = {name: options.pop(name) for name in ("allow_pickle", "trust_remote_code") if name in options}
    return load_model(Catalogue().resolve(folder, **flags), device="cpu", dtype=dtype, **options)


def _save_family(family: str, folder: Path) -> Path:
    config = AutoConfig.for_model(family, **{**_SHAPE, **_FAMILIES[family]})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_byte_tokenizer(300).hf.save_pretrained(folder)
    return folder


def _assert_same(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    pairs = {name: tensor for name, tensor in [*ours.named_parameters(), *ours.named_buffers()]}
    expected = {name: tensor for name, tensor in [*theirs.named_parameters(), *theirs.named_buffers()]}
    assert pairs.keys() == expected.keys()
    for name, tensor in pairs.items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name
    ids = torch.arange(3, 23)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("family", _FAMILIES)
def test_it_equals_what_transformers_loads(family: str, tmp_path: Path) -> None:
    _save_family(family, tmp_path)

    for dtype in ("fp32", "bf16", "fp16"):
        loaded = _load(tmp_path, dtype)
        _assert_same(loaded.module, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch_dtype(dtype)))
        assert not loaded.module.training
        assert not any(parameter.requires_grad for parameter in loaded.module.parameters())


def test_shards_and_half_precision_files_load_too(tmp_path: Path, tiny_model_folder: Path) -> None:
    sharded = save_preset("tiny", tmp_path / "sharded", shard_size="150KB")
    _assert_same(_load(sharded).module, _load(tiny_model_folder).module)

    half = copy_folder(tiny_model_folder, tmp_path / "half")
    weights = load_file(half / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, half / "model.safetensors")
    _assert_same(_load(half, "fp32").module, AutoModelForCausalLM.from_pretrained(half, dtype=torch.float32))


def test_what_it_says_about_the_model(folder: Path) -> None:
    edit_json(folder / "generation_config.json", temperature=0.6)

    loaded = _load(folder, "bfloat16", attn_implementation="eager")

    assert (loaded.dtype, loaded.device) == ("bf16", "cpu")
    assert (loaded.spec.architecture, loaded.spec.num_parameters) == ("LlamaForCausalLM", 139_584)
    assert loaded.weight_bytes == pytest.approx(2 * 139_584, rel=0.01)
    assert loaded.generation_defaults["temperature"] == 0.6
    assert loaded.module.config._attn_implementation == "eager"
    assert loaded.eos_token_ids == {2}


def test_progress_goes_up_to_the_whole_in_bytes(folder: Path) -> None:
    seen: list[Progress] = []

    _load(folder, progress=seen.append)

    weights = [progress for progress in seen if progress.stage == "load weights"]
    counts = [progress.completed for progress in weights]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 4 * 139_584)
    assert {progress.total for progress in weights} == {4 * 139_584}


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_transformers_stays_silent_and_keeps_its_settings(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers_logging.enable_progress_bar()
    level = transformers_logging.get_verbosity()
    folder = _save_family(family, tmp_path)
    capfd.readouterr()

    _load(folder)

    assert "".join(capfd.readouterr()) == ""
    assert transformers_logging.get_verbosity() == level
    assert transformers_logging.is_progress_bar_enabled()


def _num_live_tensors() -> int:
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("error", [LoadCancelled("stop"), KeyboardInterrupt(), ValueError("a broken callback")])
@pytest.mark.parametrize("name", ["folder", "random:tiny"])
def test_stopping_gives_the_memory_back_while_the_error_is_kept(folder: Path, name: str, error: BaseException) -> None:
    model = folder if name == "folder" else name
    _load(model)
    gc.collect()
    before = _num_live_tensors()
    during = []

    def stop(progress: Progress) -> None:
        if progress.total and progress.unit == "B" and progress.completed > progress.total / 2:
            during.append(_num_live_tensors())
            raise error

    with pytest.raises(type(error)) as caught:
        _load(model, progress=stop)

    assert caught.value is error
    assert during[0] > before
    assert _num_live_tensors() <= before
    assert _load(model).weight_bytes > 0


def test_weights_beyond_the_free_memory_are_refused_with_what_would_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = 400_000
    info = MemoryInfo(total_bytes=10**6, free_bytes=free_bytes, process_bytes=0)
    monkeypatch.setattr("workbench.models.load_memory.device_memory", lambda device: info)

    with pytest.raises(OutOfMemoryError, match="the weights need 0.00 GB in fp32") as caught:
        _load(folder)

    assert caught.value.needed_bytes == pytest.approx(4 * 139_584, rel=0.01)
    assert caught.value.free_bytes == free_bytes
    assert caught.value.would_fit[0].startswith("bf16")
    assert _load(folder, "bf16").weight_bytes < free_bytes
    with pytest.raises(OutOfMemoryError, match="the weights need"):
        _load("random:tiny")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_memory_that_runs_out_on_the_way_is_our_error_and_comes_back(folder: Path) -> None:
    import resource

    from workbench.shell import allocate

    with pytest.raises(OutOfMemoryError) as caught:
        allocate((1 << 46,), torch.float32, "cpu")
    assert caught.value.needed_bytes == 4 << 46

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + (64 << 20), hard))
        with pytest.raises(OutOfMemoryError, match="no room on cpu"):
            _load("random:smollm2-135m", "bf16")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert _load(folder).weight_bytes > 0


def test_an_unknown_precision_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ConfigError, match="int3.*bf16"):
        _load(folder, "int3")


def _drop(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors")

    return damage


def _set(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **fields)


_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another width": (_set(intermediate_size=96), r"gate_proj.weight' has the shape \[128, 64\] and .* \[96, 64\]"),
    "another vocabulary": (_set(vocab_size=600), r"embed_tokens.weight' has the shape \[512, 64\].*\[600, 64\]"),
    "fewer layers": (_set(num_hidden_layers=1), "holds 'model.layers.1.*', and config.json says 1 layers"),
    "more layers": (_set(num_hidden_layers=3), "lacks 9 of the tensors that config.json asks for, first"),
    "a missing tensor": (
        _drop("model.layers.1.mlp.up_proj.weight"),
        "lacks 1 of .*'model.layers.1.mlp.up_proj.weight'",
    ),
    "an unknown family": (_set(model_type="nonesuch"), "cannot be loaded: .*nonesuch"),
    "no kv heads": (_set(num_key_value_heads=0), "config: num_key_value_heads must be"),
    "no vocabulary": (_set(vocab_size=0), "config: vocab_size must be a whole number above 0"),
    "an unknown activation": (_set(hidden_act="frob"), "its config asks for 'frob', which transformers does not know"),
    "no family": (_set(model_type=None), "cannot be loaded: "),
    "not a decoder": (_set(model_type="t5"), "cannot be loaded: "),
    "an impossible head count": (_set(num_attention_heads=3, head_dim=None), "num_attention_heads 3 is not|cannot be"),
    "the headers": (
        lambda folder: edit_header(folder / "model.safetensors", lambda h: h["model.norm.weight"].update(shape=[1])),
        "tensor 'model.norm.weight' of shape",
    ),
    "generation defaults": (
        lambda folder: (folder / "generation_config.json").write_text("{"),
        "generation_config.json cannot be read as JSON",
    ),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_files_that_contradict_each_other_are_refused(folder: Path, damage: str) -> None:
    inflict, message = _DAMAGES[damage]
    inflict(folder)

    with pytest.raises(ModelFormatError, match=message):
        _load(folder)


def test_a_file_that_shrinks_while_it_is_read_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"

    def shrink(progress: Progress) -> None:
        if progress.stage == "load weights" and progress.completed == 0:
            file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(ModelFormatError, match=f"{file} ended while tensor '.*' was read"):
        _load(folder, progress=shrink)


def test_pickle_weights_load_with_the_flag(folder: Path, tiny_model_folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    _assert_same(_load(folder, allow_pickle=True).module, _load(tiny_model_folder).module)


def test_code_of_the_models_own_runs_with_the_flag(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n    answer = 42\n"
    )
    auto_map = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edit_json(folder / "config.json", model_type="own", architectures=["OwnModel"], auto_map=auto_map)

    loaded = _load(folder, trust_remote_code=True)

    assert (type(loaded.module).__name__, loaded.module.answer) == ("OwnModel", 42)
    shutil.rmtree(Path(sys.modules[type(loaded.module).__module__].__file__).parent, ignore_errors=True)
