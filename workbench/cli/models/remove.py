"""`workbench models remove`: give the disk space of a cached model back."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.byte_size import byte_size

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench models list` shows it.")],
) -> None:
    freed_bytes = ctx.obj.open_catalogue().remove(name)
    typer.echo(f"{name} is removed, {byte_size(freed_bytes)} are free again", err=True)
