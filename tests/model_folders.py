"""Small model folders on disk for tests, and ways to damage them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.models.random_model import make_random_model

__all__ = ["copy_folder", "edit_header", "edit_json", "save_preset"]


def save_preset(preset: str, folder: Path, *, shard_size: str = "1GB", seed: int = 0) -> Path:
    """Write the random model `preset` to `folder` as transformers would."""
    made = make_random_model(preset, device="cpu", dtype="fp32", seed=seed)
    made.module.save_pretrained(folder, max_shard_size=shard_size)
    made.tokenizer.hf.save_pretrained(folder)
    return folder


def copy_folder(source: Path, target: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(source, target)
    return target


def edit_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON object; None removes one."""
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def edit_header(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the header of a safetensors file, leaving the data as it is."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
