"""The words under a live plot, and word from the browser whether the plot can be seen. Knows no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.part import Part
from widgets.twin import Twin

__all__ = ["PlotNote"]


class PlotNote(Part, anywidget.AnyWidget):
    """`summary` in words, with the plot's data as a table; `is_seen` while some view of it is on a visible page."""

    _esm = module_text("plot_note")
    _css = style_text()

    summary = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_seen: Callable[[], None] = lambda: None) -> None:
        self._on_seen = on_seen
        self._views_in_sight: set[str] = set()
        super().__init__()
        self.on_msg(self._receive)

    @property
    def is_seen(self) -> bool:
        """Whether the browser last said that somebody can see it."""
        return bool(self._views_in_sight)

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("type") != "visible":
            return
        if content.get("visible"):
            self._views_in_sight.add(str(content.get("view")))
            self._on_seen()
        else:
            self._views_in_sight.discard(str(content.get("view")))

    def twin(self) -> Twin:
        """Only that it is there: numbers change from run to run."""
        return Twin("PlotNote")
