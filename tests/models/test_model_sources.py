"""Model names whose scheme a plugin knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import ModelFormatError, ModelNotFoundError
from workbench.models import Catalogue, parse_source
from workbench.plugins import BasePlugin, PluginMetadata, default_plugins, hookimpl


class Shelf(BasePlugin):
    metadata = PluginMetadata("shelf", "1.0", permissions=("model_sources",))
    folder: Path | None = None

    @hookimpl
    def register_model_sources(self, register):
        register("shelf", lambda location, progress: self.folder / location if self.folder else None)


plugin = Shelf()


@pytest.fixture
def shelf(workbench_home: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path):
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    manager = default_plugins()
    manager.load("shelf", f"{__name__}:plugin")
    plugin.folder = tiny_model_folder.parent
    yield manager
    manager.unload_plugin("shelf")


def test_a_plugin_finds_models(shelf, tiny_model_folder: Path) -> None:
    for name in (f"shelf:{tiny_model_folder.name}", f"shelf://{tiny_model_folder.name}"):
        assert parse_source(name).kind == "plugin"
        assert Catalogue().resolve(name).path == tiny_model_folder


def test_what_it_gives_is_checked_like_any_folder(shelf, tmp_path: Path) -> None:
    plugin.folder = tmp_path
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFormatError, match="no config.json"):
        Catalogue().resolve("shelf:empty")
    with pytest.raises(ModelFormatError, match="which is no folder"):
        Catalogue().resolve("shelf:gone")
    plugin.folder = None
    with pytest.raises(ModelFormatError, match="gave None"):
        Catalogue().resolve("shelf:gone")


def test_a_scheme_that_nobody_knows(workbench_home: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        parse_source("nowhere:model")
