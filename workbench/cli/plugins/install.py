"""`workbench plugins install`: get a plugin from an index. It is checked and unpacked, and not run before `enable`."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.plugins import PluginMarketplace, PluginStore

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The plugin's name in the index.")],
    *,
    index: Annotated[
        str | None, typer.Option("--index", envvar="WORKBENCH_PLUGIN_INDEX", help="A folder, a JSON file or a URL.")
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="The newest that fits if left out.")] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Also take a plugin that nobody has signed.")
    ] = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Also take an older version than the one that is here.")
    ] = False,
) -> None:
    market = PluginMarketplace(index, allow_unsigned=allow_unsigned)
    market.install_plugin(name, version, allow_downgrade=allow_downgrade)
    record = PluginStore().read().installed[name]
    signed = f"signed by {record.signed_by}" if record.signed_by else "not signed"
    wants = ", ".join(record.permissions) or "nothing"
    typer.echo(f"{name} {record.version} is installed ({signed}); it wants: {wants}", err=True)
    typer.echo(f"`workbench plugins enable {name}` switches it on", err=True)
