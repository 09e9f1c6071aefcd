import json

import pytest

from workbench.cli import main
from workbench.cli.services import Services
from workbench.errors import DownloadError, ModelNotFoundError
from workbench.models import CatalogueEntry


class ListedCatalogue:
    """A catalogue of one model in a folder of the test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.fetched, self.removed = [], []

    def list(self):
        return [
            CatalogueEntry("default", "embedded", None, None, False),
            CatalogueEntry("org/model", "hub", 98_400_000, self.folder, True),
        ]

    def fetch(self, name, progress):
        if name == "org/offline":
            raise DownloadError("the hub cannot be reached")
        self.fetched.append(name)

    def remove(self, name):
        if name != "org/model":
            raise ModelNotFoundError(f"no model is called {name!r}")
        self.removed.append(name)
        return 98_400_000

    def path(self, name, progress):
        self.fetched.append(name)
        return self.folder


@pytest.fixture
def catalogue(tmp_path):
    return ListedCatalogue(tmp_path / ("long" * 40))


@pytest.fixture
def models(catalogue):
    return lambda *args: main(["models", *args], Services(open_catalogue=lambda: catalogue))


def test_list_gives_each_model_a_line(models, catalogue, capsys):
    assert models("list") == 0
    header, default, hub = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "kind", "size", "ready", "path"]
    assert default.split() == ["default", "embedded", "no"]
    assert hub.split() == ["org/model", "hub", "98.4", "MB", "yes", str(catalogue.folder)]


def test_list_as_json(models, catalogue, capsys):
    assert models("list", "--json") == 0
    default, hub = json.loads(capsys.readouterr().out)
    assert default == {"name": "default", "kind": "embedded", "size_bytes": None, "path": None, "ready": False}
    assert (hub["size_bytes"], hub["path"]) == (98_400_000, str(catalogue.folder))


def test_fetch(models, catalogue, capsys):
    assert models("fetch", "org/model") == 0
    assert catalogue.fetched == ["org/model"]
    assert models("fetch", "org/offline") == 1
    assert "error: the hub cannot be reached" in capsys.readouterr().err


def test_path_prints_only_the_folder(models, catalogue, capsys):
    assert models("path", "org/model") == 0
    assert capsys.readouterr().out == f"{catalogue.folder}\n"


def test_remove(models, catalogue, capsys):
    assert models("remove", "org/model") == 0
    assert "98.4 MB" in capsys.readouterr().err
    assert models("remove", "org/other") == 1
    assert "error: no model is called 'org/other'" in capsys.readouterr().err


def test_a_name_is_needed(models):
    assert models("fetch") == 2
