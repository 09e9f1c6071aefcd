"""Options that would be ignored beside others: a mistake, and told as one."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from workbench.errors import ConfigError

__all__ = ["refuse_given"]


def refuse_given(ctx: typer.Context, names: Iterable[str], when: str) -> None:
    """Raises ConfigError for a parameter of these names that was typed; a variable of the environment is no mistake."""
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')}: means nothing {when}")
