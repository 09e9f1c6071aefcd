"""transformers' own server as an engine to measure beside ours."""

from __future__ import annotations

from pathlib import Path

import psutil
from model_folders import copy_folder

from workbench.benchmark.engine_process import EngineProcess


def _arguments(folder: Path) -> list[str]:
    return [f"--model={folder}", f"--folder={folder}", "--threads=1", "--context=64", "--backend=cpu"]


def test_it_answers_as_many_tokens_as_asked_and_leaves_nothing_behind(embedded_model_folder: Path) -> None:
    with EngineProcess(["transformers-serve", *_arguments(embedded_model_folder)]) as process:
        started = process.start()
        assert started is not None, process.error
        assert "over HTTP" in started.version and started.vocab_size == 49152
        # The server counts the tokens of prompt and answer; other numbers would be an error.
        answered = process.generate([[5, 70_000, 9], [1, 2, 3]], 3)
        assert answered is not None, process.error
        assert answered.seconds > 0 and len(answered.gaps_s) >= 1
        children = psutil.Process(process._process.pid).children(recursive=True)
        assert len(children) == 1
    psutil.wait_procs(children, timeout=60)
    assert not children[0].is_running()


def test_a_server_that_cannot_start_is_its_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_model_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with EngineProcess(["transformers-serve", *_arguments(folder)]) as process:
        assert process.start() is None
    assert "transformers serve ended with status" in process.error
