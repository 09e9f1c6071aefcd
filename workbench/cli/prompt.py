"""One line from the terminal, with editing and history where there is readline. No Ctrl-C is lost at the prompt."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["read_line"]

_LONGEST_WAIT_S = 0.1


def read_line(prompt: str) -> str:
    """What `input` gives. Call it from the main thread. Raises EOFError on Ctrl-D and KeyboardInterrupt on Ctrl-C."""
    # Line editing and history for `input`; only some platforms have it.
    with suppress(ImportError):
        import readline  # noqa: F401
    with _waits_cut_short():
        return input(prompt)


@contextmanager
def _waits_cut_short() -> Iterator[None]:
    """Let no wait for a key last longer than a tenth of a second.

    `input` notices a Ctrl-C by the wait that it breaks off. One that comes just before the wait, when the prompt can
    be seen already, breaks off nothing and would be noticed with the next key only; a timer's signal breaks off
    the wait all the same. Platforms without timers (Windows) have no such gap.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    previous = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _LONGEST_WAIT_S, _LONGEST_WAIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
