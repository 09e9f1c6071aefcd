"""Where the lists of commands are printed: a terminal folds long cells, a pipe gets each entry on one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["table_console"]

_PIPE_WIDTH = 1000


def table_console() -> Console:
    """A console on stdout that prints what it is given as it is."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
