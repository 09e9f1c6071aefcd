"""`workbench models fetch`: download and convert now, so that a later load finds everything in place."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.progress_display import ProgressDisplay

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help='"default", a hub id org/name[@revision], or a .gguf file.')],
) -> None:
    catalogue = ctx.obj.open_catalogue()
    with ProgressDisplay() as progress:
        catalogue.fetch(name, progress)
    typer.echo(f"{name} is ready to load", err=True)
