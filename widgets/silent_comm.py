"""What a widget talks to where no page is asked for: nobody. Starts nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["SilentComm"]


class SilentComm:
    """Takes the place of the comm that ipywidgets would open, whose messages an executed notebook keeps."""

    # ipywidgets sends nothing without one.
    kernel = None

    def __init__(self) -> None:
        self.comm_id = uuid.uuid4().hex

    def on_msg(self, _callback: Callable[[Any], None]) -> None:
        """Nobody says anything."""

    def close(self, *_: Any, **__: Any) -> None:
        """Nothing is open."""
