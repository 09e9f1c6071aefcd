"""`workbench plugins remove`: an installed plugin's files go; what it has written itself stays."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.plugins import PluginActions, default_plugins

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
) -> None:
    typer.echo(PluginActions(default_plugins()).remove(name), err=True)
