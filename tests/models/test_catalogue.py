import json
import subprocess
import sys
from pathlib import Path

import pytest
from model_folders import copy_folder

from workbench.child_lifetime import python_environment
from workbench.errors import ConfigError, ModelNotFoundError
from workbench.models import Catalogue
from workbench.models.embedded import embedded_folder


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_folder_is_taken_as_it_is(tiny_model_folder: Path) -> None:
    files = Catalogue().resolve(tiny_model_folder, allow_pickle=True)

    assert (files.path, files.name, files.gguf_path) == (tiny_model_folder, "model", None)
    assert (files.allow_pickle, files.trust_remote_code) == (True, False)
    assert Catalogue().path(str(tiny_model_folder)) == tiny_model_folder


def test_a_first_run_lists_the_embedded_model_as_not_there() -> None:
    (entry,) = Catalogue().list()

    assert (entry.name, entry.kind, entry.ready, entry.size_bytes, entry.path) == (
        "default",
        "embedded",
        False,
        None,
        None,
    )


def test_the_embedded_model_is_listed_and_its_cache_entry_removed(
    home_with_embedded_model: Path, embedded_model_folder: Path
) -> None:
    (entry,) = Catalogue().list()
    assert entry.ready
    assert entry.size_bytes > 600_000_000

    assert Catalogue().remove("default") > 0
    assert not embedded_folder().is_ready()
    assert (embedded_model_folder / "config.json").is_file()
    with pytest.raises(ModelNotFoundError, match="nothing is cached for default; cached are: nothing yet"):
        Catalogue().remove("default")


def test_the_users_own_files_are_not_removed(tiny_model_folder: Path) -> None:
    for name in (tiny_model_folder, "random:tiny"):
        with pytest.raises(ConfigError, match="is not in a cache"):
            Catalogue().remove(name)
    with pytest.raises(ConfigError, match="removed with all its revisions; leave out '@v1'"):
        Catalogue().remove("org/name@v1")
    assert (tiny_model_folder / "model.safetensors").is_file()


def test_random_models_have_no_folder() -> None:
    with pytest.raises(ConfigError, match="random:tiny has no files: its weights are made in memory"):
        Catalogue().path("random:tiny")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("defualt", "did you mean 'default'"),
        ("llama-3.1-8b", "did you mean 'random:llama-3.1-8b'"),
        ("something else", "Here now: nothing yet"),
    ],
)
def test_an_unknown_name_gets_near_ones_and_what_is_here(name: str, hint: str) -> None:
    with pytest.raises(ModelNotFoundError, match=hint):
        Catalogue().resolve(name)


def test_a_mistyped_path_gets_its_neighbours(tiny_model_folder: Path, tmp_path: Path) -> None:
    copy_folder(tiny_model_folder, tmp_path / "my-model")

    with pytest.raises(ModelNotFoundError, match=f"no file or folder at .*did you mean '{tmp_path / 'my-model'}'"):
        Catalogue().resolve(tmp_path / "my-modle")


def test_listing_and_resolving_need_no_torch(tiny_model_folder: Path) -> None:
    code = (
        "import json, sys; from workbench.models import Catalogue; c = Catalogue(); c.list(); c.resolve(sys.argv[1]); "
        "print(json.dumps([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules]))"
    )

    output = subprocess.check_output(
        [sys.executable, "-c", code, str(tiny_model_folder)], env=python_environment(), text=True
    )

    assert json.loads(output) == []
