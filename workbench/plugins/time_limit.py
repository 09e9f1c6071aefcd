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
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # also a SystemExit is the plugin's own affair
            errors.append(error)

    thread = threading.Thread(target=run, name="workbench-plugin-step", daemon=True)
    thread.start()
    thread.join(limit_s)
    if results:
        return results[0]
    if not errors:
        raise PluginError(f"{what} took longer than {limit_s:g} s and was left behind")
    if isinstance(errors[0], Exception):
        raise errors[0]
    raise PluginError(f"{what} ended with {type(errors[0]).__name__}: {errors[0]}")
