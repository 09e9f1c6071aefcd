"""`workbench models path`: the folder on stdout and nothing else, so that a script can pass it on."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.progress_display import ProgressDisplay

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Any model name; it is fetched first where it is missing.")],
) -> None:
    with ProgressDisplay() as progress:
        path = ctx.obj.open_catalogue().path(name, progress)
    print(path)
