"""Saved notebooks read well on a page that runs nothing. That their outputs are true is nbval's to check."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

_NOTEBOOKS_FOLDER = Path(__file__).parents[1] / "notebooks"
_NOTEBOOKS = sorted(_NOTEBOOKS_FOLDER.rglob("*.ipynb"))


@pytest.fixture(params=_NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_it_is_valid_and_runs_on_the_environment_it_is_opened_in(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("read config\nload weights\nload weights: 50%\n", "read config\nread quantised weights\n"),
        (
            "<p>8.1 tokens/s for one request (bound by memory)<br>rates measured here</p>",
            "<p>22 tokens/s for one request (bound by host); held back by computing from batch 12 on<br>"
            "rates assumed for 2 cores, not measured; corrected by 4 measurements of such models here</p>",
        ),
        ("took 2 s, 1.5 GB on cuda:1, http://127.0.0.1:8123/v1", "took 31 s, 12 GB on cuda:0, http://127.0.0.1:9/v1"),
    ],
)
def test_the_sanitiser_for_ones_own_notebooks_makes_equal_what_differs_between_runs(one, other):
    patterns = get_sanitize_patterns((_NOTEBOOKS_FOLDER / "ci" / "sanitize.cfg").read_text("utf-8"))

    def sanitized(text):
        for regex, replacement in patterns:
            text = re.sub(regex, replacement, text)
        return text

    assert sanitized(one) == sanitized(other) != one
    kept = "The capital is Paris.\ncheck the rates of 3 banks\n"
    assert sanitized(kept) == kept


def test_every_cell_was_run_in_order_and_none_failed(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert kinds
    assert "error" not in kinds


def test_widgets_are_saved_as_text_and_tables_only(notebook):
    assert "widgets" not in notebook.metadata
    kinds = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "text/html"}


def test_nothing_of_the_machine_it_was_run_on_is_saved(notebook):
    assert str(Path.home()) not in nbformat.writes(notebook)
    assert str(Path(__file__).parents[1]) not in nbformat.writes(notebook)
