"""`workbench models list`: what is in the catalogue and what of it is ready to load."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from workbench.byte_size import byte_size
from workbench.cli.table_console import table_console

__all__ = ["command"]


def command(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    entries = ctx.obj.open_catalogue().list()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2, default=str))
        return
    from rich.table import Table

    console = table_console()
    table = Table("name", "kind", "size", "ready", box=None, pad_edge=False)
    table.add_column("path", overflow="fold")
    for entry in entries:
        size = "" if entry.size_bytes is None else byte_size(entry.size_bytes)
        table.add_row(entry.name, entry.kind, size, "yes" if entry.ready else "no", str(entry.path or ""))
    console.print(table)
