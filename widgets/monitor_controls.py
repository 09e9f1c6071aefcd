"""Pause, window and threshold of a live plot, its words, and word from the browser whether it can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.part import Part
from widgets.sight import Sight
from workbench.errors import ConfigError
from workbench.twin import Twin

__all__ = ["WINDOWS_S", "MonitorControls", "check_threshold", "check_window"]

# What the window can be, in seconds.
WINDOWS_S = (60.0, 120.0, 300.0, 900.0)
_LONGEST_S = 86_400


def check_window(window_s: object) -> None:
    """Raises ConfigError for what is no length of time, in seconds."""
    if isinstance(window_s, bool) or not isinstance(window_s, int | float) or not 1 <= window_s <= _LONGEST_S:
        raise ConfigError(f"window_s={window_s!r}: must be a number of seconds from 1 to {_LONGEST_S:,}")


def check_threshold(percent: object) -> None:
    """Raises ConfigError for what is no share of a memory, in percent; None is no line."""
    if percent is None:
        return
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 1 <= percent <= 100:
        raise ConfigError(f"threshold_percent={percent!r}: must be a number from 1 to 100, or empty for no line")


class MonitorControls(Part, anywidget.AnyWidget):
    """What a user can do to a live plot. `on_change` is called after each change.

    `summary` says the plot in words; `alarm` what is above the threshold; `threshold_percent` is a share of a device's
    memory, None for no line; `is_seen` is true while some view of it is on a visible page.
    """

    _esm = module_text("monitor_controls")
    _css = style_text()

    summary = traitlets.Unicode().tag(sync=True)
    alarm = traitlets.Unicode().tag(sync=True)
    is_paused = traitlets.Bool(False).tag(sync=True)
    window_s = traitlets.Float(120.0).tag(sync=True)
    windows_s = traitlets.List(list(WINDOWS_S)).tag(sync=True)
    threshold_percent = traitlets.Float(None, allow_none=True).tag(sync=True)
    has_threshold = traitlets.Bool(True).tag(sync=True)

    def __init__(self, on_change: Callable[[], None] = lambda: None, **state: Any) -> None:
        self._on_change = on_change
        self._sight = Sight()
        window_s = state.get("window_s", 120.0)
        if window_s not in WINDOWS_S:
            state["windows_s"] = sorted({*WINDOWS_S, window_s})
        super().__init__(**state)
        self.on_msg(self._receive)

    @property
    def is_seen(self) -> bool:
        """Whether the browser last said that somebody can see it."""
        return self._sight.is_seen

    def choose_window(self, window_s: float) -> None:
        """Show the last `window_s` seconds. Raises ConfigError for one that is not offered."""
        if window_s not in self.windows_s:
            raise ConfigError(f"window_s={window_s!r}: must be one of {', '.join(f'{w:g}' for w in self.windows_s)}")
        self.window_s = window_s
        self._on_change()

    def choose_threshold(self, percent: float | None) -> None:
        """Draw a line at a share of the memory, None for no line. Raises ConfigError outside 1 to 100."""
        check_threshold(percent)
        self.threshold_percent = percent
        self._on_change()

    def pause(self, paused: bool) -> None:
        """Stop drawing, or go on; measuring never stops."""
        self.is_paused = paused
        self._on_change()

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        try:
            match content.get("type"):
                case "visible":
                    if self._sight.note(str(content.get("view")), bool(content.get("visible"))):
                        self._on_change()
                case "pause":
                    self.pause(bool(content.get("paused")))
                case "window":
                    self.choose_window(content.get("window_s"))
                case "threshold":
                    self.choose_threshold(content.get("percent"))
        except (ConfigError, TypeError, ValueError) as error:
            # The traits are as they were, so their values alone would not reach the page.
            self.send({"type": "refused", "cause": str(error)})

    def twin(self) -> Twin:
        """Only that it is there: numbers change from run to run."""
        return Twin("MonitorControls")
