"""`workbench plan`, as a user types it."""

from __future__ import annotations

import json

import pytest

from workbench.cli import main


def test_it_prints_the_parts_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "random:tiny", "--backend", "cpu", "--context", "512"]) == 0
    out = capsys.readouterr().out
    assert "KV cache" in out and "fits" in out and "tokens/s" in out


def test_json_is_one_object_of_plain_values(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["random:llama-3.1-8b", "--instance", "p5.48xlarge", "--gpus", "2", "--parallel", "data=2", "--json"]
    assert main(["plan", *words]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["devices"]) == 2
    assert values["fits"] is True


def test_what_does_not_fit_is_said_and_told_by_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "random:llama-3.1-70b", "--instance", "g6.xlarge", "--context", "4096"]) == 2
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--quant", "int3"], ["--parallel", "tensor=x"], ["--gpus", "7"]])
def test_bad_input_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "random:tiny", *words]) == 1
    assert capsys.readouterr().err.startswith("error: ")
