"""`workbench plugins update`: newer versions from an index; what fails leaves the version that is here."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.errors import PluginError
from workbench.plugins import PluginMarketplace, PluginStore

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which one; all that are installed if left out.")] = None,
    *,
    index: Annotated[
        str | None, typer.Option("--index", envvar="WORKBENCH_PLUGIN_INDEX", help="A folder, a JSON file or a URL.")
    ] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Also take a plugin that nobody has signed.")
    ] = False,
) -> None:
    market = PluginMarketplace(index, allow_unsigned=allow_unsigned)
    has_failed = False
    for each in [name] if name is not None else market.list_installed_plugins():
        try:
            is_new = market.update_plugin(each)
        except PluginError as error:
            if name is not None:
                raise
            has_failed = True
            typer.echo(f"error: {error}", err=True)
            continue
        version = PluginStore().read().installed[each].version
        typer.echo(f"{each}: {version}" + ("" if is_new else " is the newest that fits"), err=True)
    if has_failed:
        raise typer.Exit(1)
