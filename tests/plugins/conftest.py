"""A manager of the test's own, and a folder on the import path for its plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.plugins import PluginManager


@pytest.fixture
def no_trial(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plugins are imported without a process to try them in first, which saves its time; the names that would be."""
    tried: list[str] = []
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: tried.append(candidate.name))
    return tried


@pytest.fixture
def manager(workbench_home: Path, no_trial: list[str]) -> Iterator[PluginManager]:
    with PluginManager(time_limit_s=60) as manager:
        yield manager


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules written here can be imported, and are forgotten afterwards."""
    folder = tmp_path / "modules"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]
