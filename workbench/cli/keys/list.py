"""`workbench keys list`: the keys by name with their limits, without their secrets."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from workbench.server.keys import ApiKey, default_key_file
from workbench.server.settings import RateLimits

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
    width = max((len(_limits(key.limits)) for key in keys), default=0)
    for key in keys:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created_s))
        print(f"{key.key_id}  {key.scope:5}  {made}  {_limits(key.limits):{width}}  {key.name}")


def _limits(limits: RateLimits | None) -> str:
    """What the key may use, "server's limits" for one that has none of its own."""
    told = {"requests/min": "requests_per_minute", "tokens/min": "tokens_per_minute", "at once": "concurrent_requests"}
    given = {unit: getattr(limits, name) for unit, name in told.items()} if limits else {}
    return ", ".join(f"{value} {unit}" for unit, value in given.items() if value is not None) or "server's limits"


def _public(key: ApiKey) -> dict[str, object]:
    return {name: value for name, value in asdict(key).items() if name != "digest"}
