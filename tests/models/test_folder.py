from pathlib import Path

import pytest
import torch
from model_folders import copy_folder, edit_json
from safetensors.torch import load_file

from workbench.errors import ModelFormatError, UnsafeModelError
from workbench.models.folder import check_folder


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return copy_folder(tiny_model_folder, tmp_path / "model")


def test_a_good_folder_passes(folder: Path) -> None:
    check_folder(folder)


def test_a_folder_without_config_is_no_model(folder: Path) -> None:
    (folder / "config.json").unlink()

    with pytest.raises(ModelFormatError, match=f"{folder} has no config.json"):
        check_folder(folder)


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[]", "holds a list, not an object")])
def test_a_config_that_does_not_parse_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)

    with pytest.raises(ModelFormatError, match=f"{folder / 'config.json'} {message}"):
        check_folder(folder)


def test_a_folder_without_tokenizer_says_which_files_would_do(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()

    with pytest.raises(ModelFormatError, match="has no tokenizer; one of these files is needed: tokenizer.json, "):
        check_folder(folder)


def test_a_folder_without_weights_says_so(folder: Path) -> None:
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelFormatError, match="has no weights: neither model.safetensors nor an index"):
        check_folder(folder)


def test_pickle_weights_need_the_flag(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    with pytest.raises(UnsafeModelError, match=r"only pickle weights \(pytorch_model.bin\).*allow_pickle=True"):
        check_folder(folder)

    check_folder(folder, allow_pickle=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_models_own_needs_the_flag(folder: Path, name: str) -> None:
    edit_json(folder / name, auto_map={"AutoModelForCausalLM": "modeling.Model"})

    with pytest.raises(UnsafeModelError, match=f"{name} names Python code .*trust_remote_code=True"):
        check_folder(folder)

    check_folder(folder, trust_remote_code=True)
