"""Imports torch and, where they are needed, transformers' model classes: most of the time that a first load takes."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

__all__ = ["import_model_code", "import_torch"]


def import_torch() -> None:
    """Import what a load needs that does without transformers' model classes; a second call costs nothing."""
    _open_torch_libraries()
    with _garbage_left_alone():
        import torch  # noqa: F401
        from transformers import PreTrainedTokenizerFast  # noqa: F401


def import_model_code() -> None:
    """Import what every load needs; once it is there this costs nothing."""
    _open_torch_libraries()
    with _garbage_left_alone():
        import transformers.modeling_utils  # noqa: F401


def _open_torch_libraries() -> None:
    """Have the linker open torch's libraries while other threads run: `import torch` opens them with Python's lock
    held, and a notebook would stand still for a fifth of a second.

    Whatever goes wrong here is told by the import that follows.
    """
    spec = None if "torch" in sys.modules or sys.platform != "linux" else find_spec("torch")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).with_name("lib")
    with suppress(OSError, AttributeError):
        # The linker called as a foreign function: ctypes gives the lock back around those, not around CDLL().
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
        # In torch's own order.
        dlopen(bytes(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
        dlopen(bytes(folder / "libtorch.so"), os.RTLD_NOW)


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
            if not gc.get_freeze_count():
                # What was imported counts as old at once, or the next object made would have all of it searched.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
