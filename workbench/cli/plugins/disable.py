"""`workbench plugins disable`: do not load a plugin any more; it stays installed."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.plugins import PluginActions, default_plugins

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
) -> None:
    typer.echo(PluginActions(default_plugins()).disable(name), err=True)
