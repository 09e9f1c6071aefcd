"""The page of all commands: what `workbench COMMAND --help` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench.cli.root import root_command

__all__ = ["commands_page"]

_WIDTH = 100


def commands_page() -> str:
    """Every command of ours with its options; those of plugins depend on what is installed."""
    parts = ["# Commands", "What each command prints for `--help`. Those that plugins add are listed by `workbench`."]
    for path, help_text in _helps(root_command(), "workbench", None):
        parts += [f"## {path}", f"```text\n{help_text}\n```"]
    return "\n\n".join(parts) + "\n"


def _helps(command: Any, path: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=path.split()[-1], parent=parent, max_content_width=_WIDTH)
    context.terminal_width = _WIDTH
    yield path, command.get_help(context)
    for name in getattr(command, "entries", {}):
        _, found, _ = command.resolve_command(context, [name])
        yield from _helps(found, f"{path} {name}", context)
