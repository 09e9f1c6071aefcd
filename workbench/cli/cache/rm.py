"""`workbench cache rm`: give the disk space of one quantised model back."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.byte_size import byte_size
from workbench.errors import ConfigError
from workbench.quantize import QuantizationCache

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A model or an entry as `workbench cache ls` shows it.")],
    *,
    kind: Annotated[
        str | None, typer.Option("--type", help="Only the model's entries of this type.", show_default="all")
    ] = None,
) -> None:
    cache = QuantizationCache()
    freed_bytes = cache.remove(name, kind)
    if not freed_bytes:
        kept = ", ".join(sorted({entry.name for entry in cache.entries()})) or "nothing"
        raise ConfigError(f"nothing is kept under {name!r}; kept are: {kept}")
    typer.echo(f"{name} is removed, {byte_size(freed_bytes)} are free again", err=True)
