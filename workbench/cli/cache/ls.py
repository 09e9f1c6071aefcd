"""`workbench cache ls`: which quantised models are kept, how large they are and when they were used."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.byte_size import byte_size
from workbench.cli.table_console import table_console
from workbench.quantize import QuantizationCache

__all__ = ["command"]

_BYTES_PER_MB = 1024**2


def command(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    cache = QuantizationCache()
    stats = cache.stats()
    if as_json:
        print(json.dumps({"folder": str(cache.cache_dir), **stats}, indent=2))
        return
    from rich.table import Table

    console = table_console()
    table = Table("model", "type", "size", "last used", "entry", box=None, pad_edge=False)
    for row in stats["models"]:
        size = byte_size(int(row["size"] * _BYTES_PER_MB))
        table.add_row(row["model_name"], row["quantization_type"], size, row["last_used"], row["entry"])
    console.print(table)
    total, limit = (byte_size(int(stats[name] * _BYTES_PER_MB)) for name in ("cache_size", "max_size"))
    console.print(f"{stats['total_models']} entries, {total} of at most {limit} in {cache.cache_dir}")
