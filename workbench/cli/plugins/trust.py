"""`workbench plugins trust`: whose signatures count."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.plugins import PluginMarketplace

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A name of yours for the key; without it all are listed.")] = None,
    public_key: Annotated[str | None, typer.Argument(help="The public key; without it the name's key goes.")] = None,
) -> None:
    keys = PluginMarketplace().keys
    if name is None:
        for known, key in keys.read().items():
            print(f"{known}  {key}")
    elif public_key is None:
        keys.distrust(name)
        typer.echo(f"{name} is not trusted any more", err=True)
    else:
        keys.trust(name, public_key)
        typer.echo(f"{name} is trusted", err=True)
