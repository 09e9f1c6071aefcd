"""Files that commands write in the end: what cannot be written is told before anything is loaded."""

import pytest

from workbench.cli import main
from workbench.cli.services import Services


def _nothing_is_opened(**options):
    raise AssertionError("a model was asked for")


@pytest.mark.parametrize("file", ["missing/file.html", "."])
@pytest.mark.parametrize(
    "words",
    [
        ["profile", "random:tiny", "--trace"],
        ["profile", "random:tiny", "--flame-graph"],
        ["bench", "random:tiny", "--page"],
        ["quantize", "random:tiny", "--compare", "--figure"],
        ["example", "inference", "--output-file"],
    ],
)
def test_a_file_that_cannot_be_written_is_told_first(words, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, file], Services(open_llm=_nothing_is_opened)) == 2
    err = capsys.readouterr().err
    assert "folder" in err and words[-1] in err
