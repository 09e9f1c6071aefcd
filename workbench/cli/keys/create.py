"""`workbench keys create`: make a key and print it, once."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from workbench.cli.settings_options import takes_settings
from workbench.server.keys import Scope, default_key_file
from workbench.server.settings import RateLimits

__all__ = ["command"]


@takes_settings(limits=RateLimits)
def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    *,
    scope: Annotated[Scope, typer.Option("--scope", help="admin may also load and unload models.")] = Scope.USE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    limits: RateLimits,
) -> None:
    made = default_key_file().create(name, scope, None if limits == RateLimits() else limits)
    if as_json:
        print(json.dumps({"key_id": made.key.key_id, "name": made.key.name, "scope": scope, "key": made.secret}))
        return
    print(made.secret)
    print(f"{made.key.key_id}: keep this key, it is stored as a hash and cannot be shown again", file=sys.stderr)
