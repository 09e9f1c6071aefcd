"""Every knob of the engine is described, with its effect, on the page and in the docstring."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from workbench.engine import EngineConfig

PAGE = (Path(__file__).parents[2] / "docs" / "engine.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| [^|]*\| ([^|]+) \|$", PAGE, flags=re.MULTILINE))


@pytest.mark.parametrize("name", [field.name for field in fields(EngineConfig)])
def test_a_knob_is_described_with_its_effect(name):
    assert len(ROWS[name]) > 20
    assert f"        {name}: " in EngineConfig.__doc__


def test_the_page_describes_no_knob_that_is_gone():
    assert set(ROWS) == {field.name for field in fields(EngineConfig)}
