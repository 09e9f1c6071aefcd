"""`workbench models list`: what is in the catalogue and what of it is ready to load."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from workbench.byte_size import byte_size

__all__ = ["command"]


_PIPE_WIDTH = 1000


def command(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    entries = ctx.obj.open_catalogue().list()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    # A terminal folds long paths; a pipe gets each entry on one line.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    table = Table("name", "kind", "size", "ready", box=None, pad_edge=False)
    table.add_column("path", overflow="fold")
    for entry in entries:
        size = "" if entry.size_bytes is None else byte_size(entry.size_bytes)
        table.add_row(entry.name, entry.kind, size, "yes" if entry.ready else "no", str(entry.path or ""))
    console.print(table)
