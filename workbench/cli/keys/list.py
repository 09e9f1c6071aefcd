"""`workbench keys list`: the keys by name, without their secrets."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from workbench.server.keys import ApiKey, default_key_file

__all__ = ["command"]


def command(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    keys = default_key_file().list()
    if as_json:
        print(json.dumps([_public(key) for key in keys], indent=2))
        return
    for key in keys:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created_s))
        print(f"{key.key_id}  {key.scope:5}  {made}  {key.name}")


def _public(key: ApiKey) -> dict[str, object]:
    return {name: value for name, value in asdict(key).items() if name != "digest"}
