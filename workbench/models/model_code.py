"""Imports torch and, where they are needed, transformers' model classes: most of the time that a first load takes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["import_model_code", "import_torch"]


def import_torch() -> None:
    """Import what a load needs that does without transformers' model classes; a second call costs nothing."""
    with _garbage_left_alone():
        import torch  # noqa: F401
        from transformers import PreTrainedTokenizerFast  # noqa: F401


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
