"""`workbench plugins info`: everything about one plugin. One that is enabled is loaded to look at it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.errors import PluginError
from workbench.plugins import default_plugins, plugin_rows

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    manager = default_plugins()
    manager.load_enabled()
    rows = {row.name: row.as_dict() for row in plugin_rows(manager)}
    if name not in rows:
        raise PluginError(f"there is no plugin {name!r}; there are {', '.join(rows)}")
    facts = {**rows[name], "settings": dict(manager.store.read().settings.get(name, {}))}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        words = ", ".join(value) if isinstance(value, list) else json.dumps(value) if isinstance(value, dict) else value
        print(f"{key.replace('_', ' '):<14} {words}".rstrip())
