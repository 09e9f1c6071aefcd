"""`workbench plugins rollback`: back to the version that was installed before."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.plugins import PluginMarketplace

__all__ = ["command"]


def command(ctx: typer.Context, name: Annotated[str, typer.Argument(help="An installed plugin.")]) -> None:
    typer.echo(f"{name}: {PluginMarketplace().rollback_plugin(name)} is in use again", err=True)
