"""The `workbench` command. A command is imported when it is called, so `--help` needs neither torch nor a model."""

from __future__ import annotations

import os
from collections.abc import Sequence

from workbench.cli.services import Services

__all__ = ["main"]


def main(args: Sequence[str] | None = None, services: Services | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    `args` default to the process's own; `services` are what the commands work on (tests pass their own).
    """
    from workbench.cli.root import root_command

    if os.environ.get("_WORKBENCH_COMPLETE"):  # a shell's script asks
        from workbench.cli.completion import prepare_completion

        prepare_completion()
    try:
        root_command().main(args=args, prog_name="workbench", obj=services or Services())
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
