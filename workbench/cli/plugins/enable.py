"""`workbench plugins enable`: try a plugin's import, load it once, and have it loaded from now on."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from workbench.plugins import default_plugins

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
    *,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting of the plugin; VALUE as JSON, or a text.")
    ] = [],  # noqa: B006 - typer wants a list, and nothing changes it
) -> None:
    manager = default_plugins()
    manager.enable(name, dict(map(_setting, settings)) if settings else None)
    metadata = manager.get_plugin_metadata(name)
    typer.echo(f"{name} {metadata['version']} is on", err=True)


def _setting(text: str) -> tuple[str, Any]:
    key, has_value, value = text.partition("=")
    if not key or not has_value:
        raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE.", param_hint="'--set'")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
