"""`workbench plugins disable`: do not load a plugin any more; it stays installed."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.errors import PluginError
from workbench.plugins import default_plugins

__all__ = ["command"]


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name as `workbench plugins ls` shows it.")],
) -> None:
    manager = default_plugins()
    state = manager.store.read()
    if name not in state.enabled and name not in state.disabled:
        raise PluginError(f"plugin {name} is not enabled; enabled are: {', '.join(state.enabled) or 'none'}")
    manager.disable(name)
    typer.echo(f"{name} is off", err=True)
