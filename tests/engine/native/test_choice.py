"""Which runner a model on the CPU gets: at once, after compiling, or torch's operators with the reason."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from model_folders import copy_folder

from workbench import EngineConfig, LlamaGPU
from workbench.backends.processor import Processor
from workbench.engine.native import choice
from workbench.engine.native.compiler import find_compiler, processor_obstacle, target_flags
from workbench.engine.native.library import build_library, cached_library
from workbench.errors import BackendUnavailableError

PROMPT = [5, 6, 7, 8, 9]


@pytest.fixture(scope="module")
def small_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose sizes the kernels take, with the tiny model's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = copy_folder(tiny_model_folder, tmp_path_factory.mktemp("small") / "model")
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=256, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _load(folder: Path, **knobs) -> LlamaGPU:
    return LlamaGPU(folder, prefer_gpu=False, quant_type="bf16", engine=EngineConfig(**knobs))


def _processor(tmp_path: Path, flags: str) -> Processor:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(f"flags : {flags}\n")
    return Processor(tmp_path)


def test_a_processor_without_the_instructions_is_named(tmp_path: Path) -> None:
    assert "avx512_vnni" in processor_obstacle(_processor(tmp_path, "avx2 avx512f"))


def test_matrix_units_are_used_where_the_processor_has_them(tmp_path: Path) -> None:
    assert "-mamx-int8" in target_flags(_processor(tmp_path, "avx512_vnni amx_int8 amx_bf16"))
    (tmp_path / "other").mkdir()
    assert "-mamx-int8" not in target_flags(_processor(tmp_path / "other", "avx512_vnni"))


@pytest.mark.usefixtures("library")
class TestWithKernels:
    """On a machine that has them."""

    def test_a_cached_library_is_used_at_once(self, small_folder: Path) -> None:
        with _load(small_folder) as llm:
            assert llm.get_backend_info()["runner"] == "native decoder"
            assert len(llm.submit(PROMPT, max_tokens=5, ignore_eos=True).result().token_ids) == 5

    def test_it_can_be_declined(self, small_folder: Path) -> None:
        with _load(small_folder, native_kernels=False) as llm:
            assert llm.runner_reason == "torch's operators: native_kernels=False"
            assert len(llm.submit(PROMPT, max_tokens=5, ignore_eos=True).result().token_ids) == 5

    def test_without_a_compiler_torch_serves(self, small_folder: Path, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        assert find_compiler() is None
        with _load(small_folder) as llm:
            assert "no C++ compiler" in llm.runner_reason
            assert len(llm.submit(PROMPT, max_tokens=5, ignore_eos=True).result().token_ids) == 5
        with pytest.raises(BackendUnavailableError, match="no C\\+\\+ compiler"):
            build_library(Processor())

    def test_torch_serves_until_the_kernels_are_compiled(
        self, small_folder: Path, native_library_path: Path, monkeypatch
    ) -> None:
        may_finish = threading.Event()

        def slow_build(processor: Processor) -> Path:
            assert may_finish.wait(60)
            return native_library_path

        monkeypatch.setattr(choice, "cached_library", lambda processor: None)
        monkeypatch.setattr(choice, "build_library", slow_build)
        with _load(small_folder) as llm:
            assert "while the native decoder is being compiled" in llm.runner_reason
            running = llm.submit(PROMPT, max_tokens=200, ignore_eos=True)
            pieces = iter(running)
            next(pieces)
            may_finish.set()
            assert len([*pieces]) > 0
            assert len(running.result().token_ids) == 200
            assert llm.wait_until_compiled(60) and llm.runner_reason.startswith("native decoder")
            again = llm.submit(PROMPT, max_tokens=5, ignore_eos=True).result()
            assert len(again.token_ids) == 5

    def test_a_load_can_wait_for_the_kernels(self, small_folder: Path, native_library_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(choice, "cached_library", lambda processor: None)
        monkeypatch.setattr(choice, "build_library", lambda processor: native_library_path)
        with _load(small_folder, serve_at_once=False) as llm:
            assert llm.runner_reason == "native decoder" and llm.wait_until_compiled(0)

    def test_a_model_can_be_unloaded_while_they_are_compiled(self, small_folder: Path, monkeypatch) -> None:
        may_finish, asked = threading.Event(), threading.Event()

        def build(processor: Processor) -> Path:
            asked.set()
            assert may_finish.wait(60)
            raise BackendUnavailableError("too late")

        monkeypatch.setattr(choice, "cached_library", lambda processor: None)
        monkeypatch.setattr(choice, "build_library", build)
        llm = _load(small_folder)
        assert asked.wait(60)
        llm.unload()
        may_finish.set()
        _wait_for(lambda: llm.runner_reason == "torch's operators: too late")

    def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch, workbench_home: Path
    ) -> None:
        (workbench_home / "native").unlink()
        compiler = tmp_path / "c++"
        compiler.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && echo fake 1 && exit 0\necho "error: no disk" >&2\nexit 1\n'
        )
        compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(compiler))
        with pytest.raises(BackendUnavailableError, match="error: no disk"):
            build_library(Processor())
        assert cached_library(Processor()) is None
        assert [path for path in (workbench_home / "native").iterdir() if not path.name.startswith(".")] == []

    def test_another_compiler_gets_a_build_of_its_own(self, monkeypatch, tmp_path: Path) -> None:
        assert cached_library(Processor()) is not None
        wrapper = tmp_path / "c++"
        wrapper.write_text("#!/bin/sh\necho another 2\n")
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(wrapper))
        assert cached_library(Processor()) is None
        assert os.environ["CXX"] == find_compiler().path


def _wait_for(condition) -> None:
    deadline = threading.Event()
    for _ in range(600):
        if condition():
            return
        deadline.wait(0.05)
    raise AssertionError("it did not come true in 30 s")
