"""A command group that knows its commands by name and help, and imports one only when it is called."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Entry", "LazyGroup"]


@dataclass(frozen=True)
class Entry:
    """One command: the module whose `command` function it is, a group class, or the function itself; and the line that
    help shows."""

    target: str | type[LazyGroup] | Callable[..., Any]
    help: str


class LazyGroup(TyperGroup):
    """Subclasses list their commands in `entries`; each command also takes `--debug`."""

    entries: Mapping[str, Entry] = MappingProxyType({})

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Help, completion and "did you mean" look here; what is called is loaded by `resolve_command`.
        self.commands = {
            name: TyperCommand(name, help=entry.help, rich_markup_mode=None) for name, entry in self.entries.items()
        }

    def further_entries(self) -> Mapping[str, Entry]:
        """Commands that are looked for only when they are needed."""
        return {}

    def list_commands(self, ctx: Any) -> list[str]:
        self._add_further()
        return super().list_commands(ctx)

    def _add_further(self) -> None:
        for name, entry in self.further_entries().items():
            if name not in self.commands:
                self.entries = {**self.entries, name: entry}
                self.commands[name] = TyperCommand(name, help=entry.help, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            self._add_further()
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or name not in self.entries:
            return name, command, rest
        return name, _load(name, self.entries[name]), rest


def _load(name: str, entry: Entry) -> Any:
    if isinstance(entry.target, type):
        return entry.target(name=name, help=entry.help, no_args_is_help=True, rich_markup_mode=None)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(entry.target, str):
        function = _with_debug(importlib.import_module(entry.target).command)
    else:
        function = entry.target
    app.command(name, help=entry.help)(function)
    return typer.main.get_command(app)


def _with_debug(function: Callable[..., None]) -> Callable[..., None]:
    """The command with `--debug` after its name too, handed to the root command's parameters."""
    signature = inspect.signature(function, eval_str=True)
    option = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
    parameter = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)

    def command(ctx: typer.Context, *args: Any, debug: bool, **values: Any) -> None:
        ctx.find_root().params["debug"] |= debug
        function(ctx, *args, **values)

    made = signature.replace(parameters=[*signature.parameters.values(), parameter])
    setattr(command, "__signature__", made)  # noqa: B010 (functions declare none)
    return command
