"""Whether a model was trained to make embeddings, and how its author makes one of its last hidden states.

Read from the files that sentence-transformers puts beside the weights. Knows no tensors.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EmbeddingRecipe", "Pooling", "read_embedding_recipe"]

_MODULES_FILE = "modules.json"


class Pooling(enum.StrEnum):
    """Which hidden states of a text become its embedding: that of the last token, or the mean of all."""

    LAST = "last"
    MEAN = "mean"


@dataclass(frozen=True)
class EmbeddingRecipe:
    """How an embedding is made; `normalize` gives it length 1."""

    pooling: Pooling
    normalize: bool


# As older and as newer versions of sentence-transformers write it.
_FLAGS = {"pooling_mode_lasttoken": Pooling.LAST, "pooling_mode_mean_tokens": Pooling.MEAN}
_WORDS = {"lasttoken": Pooling.LAST, "mean": Pooling.MEAN}


def read_embedding_recipe(folder: Path) -> EmbeddingRecipe | None:
    """The recipe in a model's folder; None for a model that makes no embeddings, or in a way that is not known here.

    Not known are layers after the pooling (a Dense module), and poolings that need a model which looks both ways.
    """
    modules = _read_json(folder / _MODULES_FILE)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        return None
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    name = str(modules[1].get("path", ""))
    # A single folder's name: nothing here may lead out of the model's own.
    if not name or Path(name).name != name:
        return None
    pooling = _pooling(_read_json(folder / name / "config.json"))
    return EmbeddingRecipe(pooling, normalize=len(kinds) == 3) if pooling else None


def _pooling(config: Any) -> Pooling | None:
    if not isinstance(config, dict):
        return None
    if "pooling_mode" in config:
        return _WORDS.get(str(config["pooling_mode"]))
    asked = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    return _FLAGS.get(asked[0]) if len(asked) == 1 else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
