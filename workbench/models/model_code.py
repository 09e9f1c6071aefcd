"""Imports torch and transformers' model classes, which is most of the time that the first load takes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["import_model_code"]


def import_model_code() -> None:
    """Import what every load needs; once it is there this costs nothing."""
    with _garbage_left_alone():
        import transformers.modeling_utils  # noqa: F401


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """No search for garbage inside. Imports make next to none, and searching the ever more objects that they leave
    takes a quarter of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
