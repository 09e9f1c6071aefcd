"""`workbench completion`: the script with which a shell completes our commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import (  # type: ignore[attr-defined]  # handed on from a private module
    completion_init,
    get_completion_script,
)

__all__ = ["COMPLETE_VARIABLE", "Shell", "command", "prepare_completion"]

# What a shell's script sets when it asks this program to complete a line.
COMPLETE_VARIABLE = "_WORKBENCH_COMPLETE"


class Shell(StrEnum):
    """Shells that the command line library knows scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(
    ctx: typer.Context,
    shell: Annotated[
        Shell,
        typer.Argument(
            help='bash: add eval "$(workbench completion bash)" to ~/.bashrc; zsh: write it to a file _workbench in a '
            "folder of $fpath; fish: write it to ~/.config/fish/completions/workbench.fish."
        ),
    ],
) -> None:
    typer.echo(get_completion_script(prog_name="workbench", complete_var=COMPLETE_VARIABLE, shell=shell.value))


def prepare_completion() -> None:
    """Let the command tree answer a shell's script, which sets the variable when it asks."""
    completion_init()
