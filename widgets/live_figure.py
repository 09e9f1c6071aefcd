"""plotly's figure widget, opened in the browser when it is whole. Knows no numbers."""

from __future__ import annotations

import plotly.graph_objects as go

__all__ = ["LiveFigure"]


class LiveFigure(go.FigureWidget):
    """A FigureWidget without plotly's button bar.

    plotly opens its widget empty and sends layout and traces after it. A busy browser may draw in between: it then
    shows empty axes for good, and fails on every update. Here layout and traces are there from the first message on.
    """

    _is_whole = False

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(figure)
        # The browser's half learns plotly's options from this trait only; there is no public way to give them.
        self._config = {"responsive": True, "displayModeBar": False}
        self._is_whole = True
        self.open()

    def open(self) -> None:
        """Called by every widget's constructor, for this one too early."""
        if self._is_whole:
            super().open()
