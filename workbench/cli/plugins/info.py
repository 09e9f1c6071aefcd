"""`workbench plugins info`: everything about one plugin. One that is enabled is loaded to look at it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.plugins import PluginActions, default_plugins

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    facts = PluginActions(default_plugins()).info(name)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        words = ", ".join(value) if isinstance(value, list) else json.dumps(value) if isinstance(value, dict) else value
        print(f"{key.replace('_', ' '):<14} {words}".rstrip())
