"""Imports torch and, where they are needed, transformers' model classes: most of the time that a first load takes."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from workbench.progress import Progress, ProgressCallback, no_progress

__all__ = ["import_model_code", "import_torch"]


# How often whoever waits for an import is asked whether to go on.
_ASK_EVERY_S = 0.1
# transformers makes its modules when they are first asked for, and two threads that ask at once get half of one.
_importing = threading.Lock()


def import_torch(progress: ProgressCallback = no_progress) -> None:
    """Import what a load needs that does without transformers' model classes; a second call costs nothing.

    Raises what `progress` raises, which is called while this takes long on another than the main thread.
    """
    _import(_torch_alone, progress)


def import_model_code(progress: ProgressCallback = no_progress) -> None:
    """Import what every load needs; once it is there this costs nothing. `progress` is as in `import_torch`."""
    _import(_all_model_code, progress)


def _torch_alone() -> None:
    _open_torch_libraries()
    with _garbage_left_alone():
        import torch  # noqa: F401
        from transformers import PreTrainedTokenizerFast  # noqa: F401


def _all_model_code() -> None:
    _open_torch_libraries()
    with _garbage_left_alone():
        import transformers.modeling_utils  # noqa: F401


def _import(work: Callable[[], None], progress: ProgressCallback) -> None:
    """Nothing can stop an import. So that a load is cancelled without waiting for it, it has a thread of its own there,
    in which it goes on alone; the next load finds it done."""

    def alone() -> None:
        with _importing:
            work()

    if progress is no_progress or threading.current_thread() is threading.main_thread():
        alone()
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            alone()
        except BaseException as error:  # raised again by whoever waits
            errors.append(error)

    thread = threading.Thread(target=run, name="workbench-import", daemon=True)
    thread.start()
    thread.join(_ASK_EVERY_S)
    while thread.is_alive():
        progress(Progress("import torch and transformers", 0, None, ""))
        thread.join(_ASK_EVERY_S)
    if errors:
        raise errors[0]


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
