"""`workbench plugins index`: make an index of the wheels in a folder, signed with a key of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.plugins import SigningKey, write_index

__all__ = ["command"]


def command(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder that holds the wheels.")],
    *,
    key: Annotated[
        Path | None, typer.Option("--key", help="File of the signing key; made if it is not there yet.")
    ] = None,
) -> None:
    signing_key = None
    if key is not None:
        if not key.exists():
            SigningKey.generate().write(key)
            typer.echo(f"{key} is a new key: keep it to yourself", err=True)
        signing_key = SigningKey.read(key)
    for line in write_index(folder, signing_key):
        print(line)
    if signing_key is not None:
        typer.echo(f"signed; to trust it elsewhere: workbench plugins trust NAME {signing_key.public_key}", err=True)
