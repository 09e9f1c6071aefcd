from pathlib import Path

import pytest

from workbench.errors import ConfigError, ModelNotFoundError
from workbench.models import parse_source


@pytest.mark.parametrize("name", ["default", "embedded", " default "])
def test_the_embedded_model_has_two_names(name: str) -> None:
    source = parse_source(name)

    assert (source.kind, source.location) == ("embedded", "default")


def test_a_folder_wins_over_a_hub_id_of_the_same_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_source("org/name").kind == "hub"

    (tmp_path / "org" / "name").mkdir(parents=True)

    source = parse_source("org/name")
    assert (source.kind, source.location) == ("folder", str(tmp_path / "org" / "name"))


def test_a_home_folder_and_path_objects_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()

    assert parse_source("~/model").location == str(tmp_path / "model")
    assert parse_source(tmp_path / "model").kind == "folder"


def test_a_hub_id_may_carry_a_revision() -> None:
    source = parse_source("HuggingFaceTB/SmolLM2-135M@refs/pr/7")

    assert (source.kind, source.location, source.revision) == ("hub", "HuggingFaceTB/SmolLM2-135M", "refs/pr/7")


def test_a_gguf_file_and_a_preset_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.GGUF").write_bytes(b"")

    assert parse_source(tmp_path / "a.GGUF").kind == "gguf"
    assert parse_source("random:llama-3.1-8b").location == "llama-3.1-8b"


@pytest.mark.parametrize("name", ["", "  ", None, 7, "a\0b"])
def test_no_name_is_refused_with_the_forms_that_are_allowed(name: object) -> None:
    with pytest.raises(ConfigError, match="'default' .* 'random:<preset>'"):
        parse_source(name)


@pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "gone.gguf", "org/name/gone.gguf", "~/gone", "a/b/c"])
def test_a_path_that_is_not_there_is_named_in_full(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no file or folder at /"):
        parse_source(name)


@pytest.mark.parametrize("name", ["gpt", "org name", "org/na me", "x" * 5000])
def test_an_unknown_form_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="a model name is 'default'"):
        parse_source(name)


def test_a_weights_file_points_to_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")

    with pytest.raises(ConfigError, match=f"only .gguf can be loaded; for a safetensors model name .*{tmp_path}"):
        parse_source(file)
