"""`workbench quantize` and `workbench cache`: a folder that loads again, entries that are listed and removed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from workbench.cli import main


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    output: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run_command(*arguments: str) -> Outcome:
        code = main(list(arguments))
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.out + printed.err)

    return run_command


def test_a_folder_is_written_and_loads_as_a_model(run, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    made = run("quantize", str(tiny_model_folder), "--type", "int8", "--out", str(out))
    assert made.exit_code == 0, made.output
    assert str(out) in made.output
    answer = run("generate", "hello", "--model", str(out), "--max-tokens", "3", "--backend", "cpu")
    assert answer.exit_code == 0, answer.output
    again = run("quantize", str(tiny_model_folder), "--type", "int8", "--out", str(out))
    assert again.exit_code == 1
    assert "is not an empty folder" in again.output


def test_the_cache_is_listed_and_emptied(run, tiny_model_folder: Path) -> None:
    for kind in ("int8", "int4"):
        assert run("quantize", str(tiny_model_folder), "--type", kind).exit_code == 0
    listed = json.loads(run("cache", "ls", "--json").stdout)
    assert {row["quantization_type"] for row in listed["models"]} == {"int8", "int4"}
    assert "2 entries" in run("cache", "ls").output
    name = listed["models"][0]["model_name"]
    assert run("cache", "rm", name, "--type", "int4").exit_code == 0
    assert json.loads(run("cache", "ls", "--json").stdout)["total_models"] == 1
    assert "nothing is kept" in run("cache", "rm", "other").output
    assert "are free again" in run("cache", "clear").output
    assert json.loads(run("cache", "ls", "--json").stdout)["total_models"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--type", "int3"], "int8, int4"),
        (["--type", "bf16"], "chosen when loading"),
        (["--type", "gguf"], "packed already"),
        ([], "name one --type"),
        (["--type", "int8", "--figure", "x.html"], "--compare"),
    ],
)
def test_what_cannot_be_written_is_refused(run, arguments: list[str], words: str) -> None:
    refused = run("quantize", "default", *arguments)
    assert refused.exit_code != 0
    assert words in refused.output


def test_random_models_have_nothing_to_keep(run) -> None:
    assert "has no files" in run("quantize", "random:tiny", "--type", "int8").output


def test_types_are_compared(run, tmp_path: Path) -> None:
    figure = tmp_path / "figure.html"
    arguments = ["random:tiny", "--compare", "--type", "bf16", "--type", "int8", "--json", "--backend", "cpu"]
    compared = run("quantize", *arguments, "--prompt", "a text of some length", "--figure", str(figure))
    assert compared.exit_code == 0, compared.output
    plain, small = json.loads(compared.stdout)
    assert (plain["method"], small["method"]) == ("bf16", "int8")
    assert small["weight_bytes"] < 0.8 * plain["weight_bytes"]
    assert plain["problem"] == small["problem"] == ""
    assert small["tokens_per_s"] > 0
    assert 0 < small["mean_kl"] < 0.1
    assert "plotly" in figure.read_text("utf-8")
