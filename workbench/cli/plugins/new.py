"""`workbench plugins new`: write a plugin's package, with a test that passes, to change into one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.plugins.template import KINDS, write_plugin

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Small letters, digits and dashes.")],
    *,
    kind: Annotated[str, typer.Option("--kind", help=f"What it brings: {', '.join(KINDS)}.")] = "sampler",
    folder: Annotated[Path, typer.Option("--folder", help="Where its folder is made.")] = Path("."),
) -> None:
    for path in write_plugin(name, kind, folder):
        print(path)
