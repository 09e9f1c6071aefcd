"""`workbench keys revoke`: take a key away; running servers end what it still has running within seconds."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from workbench.server.keys import default_key_file

__all__ = ["command"]


def command(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(help="Its id, as `workbench keys list` shows it.")],
) -> None:
    key = default_key_file().revoke(key_id)
    print(f"{key.name} is revoked", file=sys.stderr)
