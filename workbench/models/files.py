"""A model whose files are on this machine, ready for the loader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench.models.source import ModelSource

__all__ = ["ModelFiles"]


@dataclass(frozen=True)
class ModelFiles:
    """A resolved model.

    `path` is a folder that transformers can load (None for `random:` models, which have no files);
    `gguf_path` is the packed file the folder was converted from, where there is one;
    the two flags are the caller's explicit permission to run code that came with the model.
    """

    source: ModelSource
    name: str
    path: Path | None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    gguf_path: Path | None = None

    @property
    def folder(self) -> Path:
        """`path`, for those who know that this is no `random:` model."""
        assert self.path is not None
        return self.path
