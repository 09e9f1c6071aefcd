"""Keeps an endpoint running until the process is told to end."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from workbench.server.endpoint import Endpoint

__all__ = ["serve_until_signal"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve_until_signal(endpoint: Endpoint) -> bool:
    """Serve until SIGTERM or SIGINT, then drain and stop; a second signal stops at once. Main thread only.

    False when the endpoint ended by itself.
    """
    asked, again = threading.Event(), threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        (again if asked.is_set() else asked).set()

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        while endpoint.is_running and not asked.wait(0.2):
            pass
        was_asked = asked.is_set()
        stopping = threading.Thread(target=endpoint.stop, name="workbench-drain", daemon=True)
        stopping.start()
        while stopping.is_alive() and not again.wait(0.1):
            pass
        endpoint.stop(drain_s=0.0)
        return was_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
