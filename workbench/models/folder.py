"""Is a folder a model that may be loaded? Checks its files before any library opens them."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import ModelFormatError, UnsafeModelError
from workbench.models.spec import read_config, read_json_object
from workbench.safetensors_header import read_folder_headers, weight_files

__all__ = ["check_folder"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_FILES_THAT_NAME_CODE = ("config.json", "tokenizer_config.json")
_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_folder(folder: Path, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> None:
    """Raise `ModelFormatError` or `UnsafeModelError` when the folder is damaged, incomplete or would run code."""
    read_config(folder)
    if not trust_remote_code:
        _check_code(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelFormatError(
            f"{folder} has no tokenizer; one of these files is needed: {', '.join(_TOKENIZER_FILES)}"
        )
    if weight_files(folder):
        read_folder_headers(folder)
    else:
        _check_pickle(folder, allow_pickle)


def _check_code(folder: Path) -> None:
    for name in _FILES_THAT_NAME_CODE:
        path = folder / name
        if path.is_file() and read_json_object(path).get("auto_map"):
            raise UnsafeModelError(
                f"{path} names Python code that came with the model (auto_map): it runs only with "
                "trust_remote_code=True, and only do that for code you have read"
            )


def _check_pickle(folder: Path, allow_pickle: bool) -> None:
    pickles = sorted(path.name for pattern in _PICKLE_PATTERNS for path in folder.glob(pattern))
    if not pickles:
        raise ModelFormatError(f"{folder} has no weights: neither model.safetensors nor an index of shards")
    if not allow_pickle:
        raise UnsafeModelError(
            f"{folder} has only pickle weights ({pickles[0]}), and opening those can run any code: convert them to "
            "safetensors, or pass allow_pickle=True for a file you trust"
        )
