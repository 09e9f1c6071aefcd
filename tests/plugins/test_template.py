"""New plugins from the template: each kind is a package whose own tests pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import ConfigError, PluginError
from workbench.plugins import POINTS
from workbench.plugins.points import CALLED_HOOKS
from workbench.plugins.template import KINDS, write_plugin

PROJECT = Path(__file__).parents[2]


def test_there_is_a_kind_for_every_extension_point() -> None:
    assert {part.point for part in KINDS.values()} == {*POINTS, "pre_request", "engine_start"}
    assert {"pre_request", "engine_start"} < set(CALLED_HOOKS)


def test_the_tests_of_every_new_plugin_pass(tmp_path: Path) -> None:
    for kind in KINDS:
        write_plugin(f"new-{kind}", kind, tmp_path)
    # Their names must not be told apart by where they lie, since each is a package of its own.
    folders = sorted(tmp_path.glob("new-*"))
    sources = [str(folder / "src") for folder in folders]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sources, str(PROJECT)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(
        [*command, *(str(folder / "tests") for folder in folders)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{2 * len(KINDS)} passed" in done.stdout


def test_the_code_is_tidy(tmp_path: Path) -> None:
    for kind in KINDS:
        write_plugin(f"new-{kind}", kind, tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--select",
            "E,F,W",
            "--line-length",
            "120",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert "$" not in file.read_text(), f"{file}: something was not filled in"


@pytest.mark.parametrize("name", ["../evil", "Evil", "", "9lives"])
def test_wrong_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match="name"):
        write_plugin(name, "sampler", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_kinds_are_listed(tmp_path: Path) -> None:
    write_plugin("mine", "sampler", tmp_path)
    with pytest.raises(PluginError, match="exists"):
        write_plugin("mine", "sampler", tmp_path)
    with pytest.raises(ConfigError, match="must be one of sampler, stream-filter"):
        write_plugin("other", "poem", tmp_path)
