"""`workbench plugins remove`: an installed plugin's files go; what it has written itself stays."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.errors import PluginError
from workbench.plugins import PluginMarketplace

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
) -> None:
    market = PluginMarketplace()
    if not market.uninstall_plugin(name):
        installed = ", ".join(market.list_installed_plugins()) or "none"
        raise PluginError(f"plugin {name} is not installed from an index; installed are: {installed}")
    typer.echo(f"{name} is removed", err=True)
