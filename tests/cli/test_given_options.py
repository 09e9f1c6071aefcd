"""Options that would be ignored are told as mistakes before anything is loaded; a variable that is set is none."""

import pytest

from workbench.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["app", "--url", "http://127.0.0.1:9", "--quant", "int8"], "--quant: means nothing with --url"),
        (["app", "--url", "http://127.0.0.1:9", "--engine", "vllm"], "--engine-name: means nothing with --url"),
        (["app", "--api-key", "wb-1"], "--api-key: means nothing without --url"),
        (["app", "--url", "nothing"], "must begin with http"),
        (["bench", "--url", "http://127.0.0.1:9", "--quant", "int8"], "--quant: means nothing with --url"),
        (["bench", "--rate", "3"], "--rate: means nothing without --url"),
    ],
)
def test_what_would_be_ignored_is_told(words, said, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_API_KEY", "wb-2")
    assert main(words) == 1
    assert said in capsys.readouterr().err
