"""What the README shows is run, and the tree it draws is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=[f"block{i}" for i in range(len(PYTHON_BLOCKS))])
def test_python_blocks_run(block: str, home_with_embedded_model: Path) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_two_commands_are_makefile_targets() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = re.findall(r"^make (\w+)", TEXT, re.MULTILINE)
    assert commands == ["lab", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


def test_terminal_commands_exist() -> None:
    from workbench.cli.root import root_command

    shown = re.findall(r"^workbench (\w+)", TEXT, re.MULTILINE)
    assert shown
    assert set(shown) <= set(root_command().list_commands(None))


def test_the_tree_is_there() -> None:
    drawn = re.findall(r"^(\w+)/ ", TEXT.split("## The tree")[1], re.MULTILINE)
    assert {"workbench", "widgets", "notebooks", "tests"} <= set(drawn)
    for folder in drawn:
        assert (ROOT / folder).is_dir(), folder


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
