"""`workbench cache clear`: give the disk space of all quantised models back."""

from __future__ import annotations

import typer

from workbench.byte_size import byte_size
from workbench.quantize import QuantizationCache

__all__ = ["command"]


def command(ctx: typer.Context) -> None:
    freed_bytes = QuantizationCache().clear()
    typer.echo(f"the cache is empty, {byte_size(freed_bytes)} are free again", err=True)
