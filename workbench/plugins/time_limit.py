"""Runs a function for so long and no longer. The thread of one that does not end is left behind: none can be killed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from workbench.errors import PluginError

__all__ = ["within"]

_T = TypeVar("_T")


def within(limit_s: float, what: str, function: Callable[[], _T]) -> _T:
    """What `function` gives or raises; PluginError when it takes longer than `limit_s` seconds."""
    outcome: list[tuple[bool, object]] = []

    def run() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:  # also a SystemExit is the plugin's own affair
            outcome.append((False, error))

    thread = threading.Thread(target=run, name="workbench-plugin-step", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise PluginError(f"{what} took longer than {limit_s:g} s and was left behind")
    is_good, value = outcome[0]
    if is_good:
        return value
    if isinstance(value, Exception):
        raise value
    raise PluginError(f"{what} ended with {type(value).__name__}: {value}")
