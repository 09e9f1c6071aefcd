"""Files that a command writes in the end: one that cannot be written is told before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

import typer

__all__ = ["can_be_written"]


def can_be_written(file: Path | None) -> Path | None:
    """The callback of an option. Raises typer.BadParameter for a folder, and for a file in none or in a closed one."""
    if file is None:
        return None
    if file.is_dir():
        raise typer.BadParameter(f"{file}: is a folder")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"{file}: there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise typer.BadParameter(f"{file}: may not be written")
    return file
