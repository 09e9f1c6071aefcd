"""`workbench bench` on a model, as a user types it: real engines in real processes."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from workbench.cli import main

_QUICK = ["--backend", "cpu", "--prompt-tokens", "8", "--new-tokens", "4", "--runs", "1", "--warmup-runs", "0"]


def test_ours_and_a_peer_are_measured_alike(
    tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "bench.html"
    words = ["bench", str(tiny_model_folder), *_QUICK, "--batch-size", "2", "--peer", "transformers", "--peer", "vllm"]
    assert main([*words, "--peer-python", "vllm=/nowhere/python", "--output-format", "json", "--page", str(page)]) == 0
    ours, peer, absent = json.loads(capsys.readouterr().out)["engines"]
    # What comes after the first token is a difference, which a busy machine can make negative: then it is left out.
    shared = {"ttft_ms", "prefill_tokens_per_s", "tokens_per_s", "memory_mb"}
    assert shared <= set(ours["figures"]) and shared <= set(peer["figures"])
    assert ours["figures"]["memory_mb"]["median"] > 50
    assert peer["figures"]["ttft_ms"]["ours_better_by"] > 0
    assert absent["figures"] == {} and "No such file" in absent["error"]
    assert "Plotly.newPlot" in page.read_text()


def test_a_peer_that_is_not_installed_is_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "random:tiny", *_QUICK, "--peer", "all", "--output-format", "csv"]
    assert main(words) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    errors = {row["engine"]: row["error"] for row in rows if row["error"]}
    assert set(errors) == {"transformers", "llama.cpp", "vllm"}
    assert {row["figure"] for row in rows if row["engine"] == "workbench"} >= {"ttft_ms", "tokens_per_s"}


def test_an_engine_that_dies_while_starting_tells_its_last_words(tmp_path: Path) -> None:
    from workbench.benchmark.engine_process import EngineProcess

    (tmp_path / "transformers.py").write_text("raise ImportError('broken on purpose')\n")
    words = ["transformers", "--model=x", f"--folder={tmp_path}", "--threads=1", "--context=64", "--backend=cpu"]
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with EngineProcess(words, str(python)) as process:
        assert process.start() is None
        assert "broken on purpose" in process.error and "exit status 1" in process.error
        assert process.generate([[1]], 1) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rate", "2"], "--rate"),
        (["--url", "http://127.0.0.1:9", "--runs", "2"], "--runs"),
        (["--peer", "sglang"], "sglang"),
        (["--peer-python", "vllm"], "NAME=PYTHON"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--backend", "abacus"], "abacus"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "random:tiny", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error
