"""Saved notebooks read well on a page that runs nothing. That their outputs are true is nbval's to check."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

_NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").rglob("*.ipynb"))


@pytest.fixture(params=_NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_it_is_valid_and_runs_on_the_environment_it_is_opened_in(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


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
