"""`workbench plugins ls`: the plugins that are here, and those that an index offers. Runs nothing of them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.cli.table_console import table_console
from workbench.plugins import PluginMarketplace, default_plugins, plugin_rows

__all__ = ["command"]


def command(
    ctx: typer.Context,
    *,
    index: Annotated[
        str | None, typer.Option("--index", help="Show what this index offers instead: a folder, a file or a URL.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    rows = _offered(index) if index else [row.as_dict() for row in plugin_rows(default_plugins())]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    columns = ("name", "version", "description") if index else ("name", "version", "status", "origin", "description")
    console = table_console()
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


def _offered(index: str) -> list[dict[str, object]]:
    found = PluginMarketplace(index).read_index()
    return [{**entry.metadata.as_dict(), "sha256": entry.sha256} for entry in found.entries]
