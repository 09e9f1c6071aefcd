"""plotly's figure widget, opened in the browser when it is whole, and loaded there without haste. Knows no numbers."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

import plotly.graph_objects as go
import traitlets

from widgets.front_end import module_text

__all__ = ["LiveFigure", "import_frames"]


def import_frames() -> None:
    """Import pandas, before a figure is made that another thread draws.

    plotly asks whatever it finds under that name in `sys.modules` whether a line is one of its columns; while a cell
    imports it that is half a module.
    """
    import pandas  # noqa: F401


class LiveFigure(go.FigureWidget):
    """A FigureWidget without plotly's button bar; whoever changes it holds `lock`.

    plotly opens its widget empty and sends layout and traces after it. A busy browser may draw in between: it then
    shows empty axes for good, and fails on every update. Here layout and traces are there from the first message on,
    and each page that begins to draw is sent the figure as it stands.
    """

    _esm = module_text("live_figure")
    plotly = traitlets.Unicode().tag(sync=True)

    # Set before there is a widget to set them on.
    _is_whole = False
    _is_drawn = False

    def __init__(self, figure: go.Figure, lock: threading.Lock) -> None:
        self._lock = lock
        super().__init__(figure)
        self.plotly = str(go.FigureWidget._esm)
        # The browser's half learns plotly's options from this trait only; there is no public way to give them.
        self._config = {"responsive": True, "displayModeBar": False}
        self._is_whole = True
        self.open()
        self.on_msg(self._receive)

    @property
    def is_drawn(self) -> bool:
        """Whether the page that shows it has drawn it, so that it takes updates."""
        return self._is_drawn

    def open(self) -> None:
        """Called by every widget's constructor, for this one too early."""
        if self._is_whole:
            super().open()

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("type") == "drawing":
            with self._lock:
                self._is_drawn = False
                self._widget_data, self._widget_layout = deepcopy(self._data), deepcopy(self._layout)
                self.send({"type": "current"})
        elif content.get("type") == "drawn":
            self._is_drawn = True
