"""Widgets of a cell are closed when the cell runs again: Jupyter would keep them, and they what they watch."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

__all__ = ["composes", "current_run", "note_made", "runs_unwatched"]

_log = logging.getLogger(__name__)


class _Closable(Protocol):
    def close(self) -> None: ...


# Of each cell: the run that made widgets last, and those.
_made: dict[str, tuple[str, list[weakref.ref[_Closable]]]] = {}
_lock = threading.Lock()
_is_composing: ContextVar[bool] = ContextVar("workbench_is_composing", default=False)


def note_made(widget: _Closable) -> None:
    """A widget is made: if its cell ran before, what that run made is closed. Outside a notebook nothing happens."""
    run = None if _is_composing.get() else current_run()
    if run is None:
        return
    cell, number = run
    with _lock:
        known = _made.get(cell)
        earlier = known[1] if known is not None and known[0] != number else []
        if known is None or known[0] != number:
            known = _made[cell] = (number, [])
        known[1].append(weakref.ref(widget))
    for reference in reversed(earlier):
        _close(reference())


def composes(init: Callable[..., None]) -> Callable[..., None]:
    """For the `__init__` of a widget that takes its own earlier one's place, with all its parts."""

    @functools.wraps(init)
    def composing(*args: Any, **options: Any) -> None:
        token = _is_composing.set(True)
        try:
            init(*args, **options)
        finally:
            _is_composing.reset(token)

    return composing


def _close(widget: _Closable | None) -> None:
    if widget is None:
        return
    try:
        widget.close()
    except Exception:
        _log.exception("closing a widget of the cell's earlier run failed")


def current_run() -> tuple[str, str] | None:
    """The cell that runs, and which run of it; None where no page says so, as in programs that run notebooks."""
    kernel = _kernel()
    if kernel is None:
        return None
    parent = kernel.get_parent("shell") or {}
    cell, number = parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")
    return (str(cell), str(number)) if cell and number else None


def runs_unwatched() -> bool:
    """Whether a program runs the notebook, not somebody at a page: outputs may be held against those of other runs."""
    return _kernel() is not None and current_run() is None


def _kernel() -> Any | None:
    ipython: Any = sys.modules.get("IPython")
    return getattr(ipython.get_ipython(), "kernel", None) if ipython is not None else None
