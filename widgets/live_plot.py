"""One live plot of memory and tokens per second. Draws what a sampler measured; measures nothing itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import ipywidgets
import plotly.graph_objects as go

from widgets.figures import LiveView, live_figure, live_lines, live_range, live_summary, live_updates, live_view
from widgets.part import Part
from widgets.plot_note import PlotNote
from widgets.twin import Twin, is_headless
from workbench.backends import BackendStatus, detect
from workbench.telemetry import DeviceMemory, EngineRates, ProcessMemory, Sampler
from workbench.telemetry.engine_rates import EngineCounters

__all__ = ["LivePlot", "gpu_probes"]

_BEAT_S = 1.0
# Never redrawn faster than 2 Hz, however fast a sampler beats that was handed in.
_MIN_REDRAW_S = 0.5
# Memory that moved by less than this share is not worth a redraw.
_NOTICEABLE = 0.01


def gpu_probes(statuses: Sequence[BackendStatus]) -> list[DeviceMemory]:
    """A memory probe for each GPU that can be used."""
    return [
        DeviceMemory(device.index, device.uuid, backend=status.backend.name)
        for status in statuses
        if status.available and status.backend.device_type != "cpu"
        for device in status.devices
    ]


class LivePlot(Part, ipywidgets.VBox):
    """Memory and tokens per second of the last `window_s` seconds, redrawn at 1 Hz while something moves.

    Nothing is drawn while no browser shows it or nothing changes. `stats` gives the engine's counters (`llm.stats`,
    `session.stats`), `devices` are probes of GPUs (None: all of this machine). A `sampler` that is handed in is left
    running by `close()`; without one the plot has its own. Exactly one FigureWidget: each carries 5 MB of JavaScript.
    """

    # Until there is a sampler to leave.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _owns_sampler = False

    def __init__(
        self,
        stats: Callable[[], EngineCounters | None] = lambda: None,
        *,
        devices: Sequence[DeviceMemory] | None = None,
        sampler: Sampler | None = None,
        window_s: float = 120.0,
    ) -> None:
        devices = gpu_probes(detect()) if devices is None else devices
        self._window_s = window_s
        self._lines = live_lines([device.name for device in devices])
        self._owns_sampler = sampler is None
        self._sampler = sampler or Sampler(
            [ProcessMemory(), *devices, EngineRates(stats)], _BEAT_S, capacity=2 * round(window_s / _BEAT_S)
        )
        self._drawn: LiveView | None = None
        self._drawn_at_s = float("-inf")
        self._lock = threading.Lock()
        empty = live_view({}, self._lines, 0.0, window_s)
        figure = live_figure(empty, window_s)
        self.figure = figure if is_headless() else _figure_widget(figure)
        self.note = PlotNote(on_seen=self._forget_drawn)
        self.note.summary = live_summary(empty)
        super().__init__([self.note] if is_headless() else [self.figure, self.note])
        self.add_class("wb-live")
        self._forget = self._sampler.observe(self._on_beat)
        self._sampler.start()

    @property
    def sampler(self) -> Sampler:
        """Where the numbers come from."""
        return self._sampler

    def draw(self) -> None:
        """Draw what has been measured up to now, seen or not."""
        self._draw(self._sampler.now_s())

    def close(self) -> None:
        """Stop drawing, end a sampler of its own, and take the widgets away."""
        self._forget()
        if self._owns_sampler:
            self._sampler.stop()
        for child in self.children:
            child.close()
        super().close()

    def _forget_drawn(self) -> None:
        """A view came into sight, perhaps of a page that was just loaded: the next beat draws, whatever happens."""
        self._drawn = None

    def _on_beat(self, time_s: float) -> None:
        """Called by the sampler's thread."""
        if self.note.is_seen and time_s - self._drawn_at_s >= _MIN_REDRAW_S:
            self._draw(time_s, only_if_moved=True)

    def _draw(self, time_s: float, *, only_if_moved: bool = False) -> None:
        with self._lock:
            view = live_view(self._sampler.series, self._lines, time_s, self._window_s)
            if only_if_moved and not _has_moved(self._drawn, view):
                return
            self._drawn, self._drawn_at_s = view, time_s
            with self.figure.batch_update():
                for trace, update in zip(self.figure.data, live_updates(view), strict=True):
                    trace.update(update)
                self.figure.update_xaxes(range=live_range(view, self._window_s))
            self.note.summary = live_summary(view)

    def twin(self) -> Twin:
        """What it plots; no numbers and no devices, as they change from run to run and from machine to machine."""
        return Twin("LivePlot", (("plot", f"memory and tokens/s of the last {self._window_s:.0f} s"),))


def _figure_widget(figure: go.Figure) -> go.FigureWidget:
    widget = go.FigureWidget(figure)
    # The browser's half learns plotly's options from this trait only; there is no public way to give them.
    widget._config = {"responsive": True, "displayModeBar": False}
    return widget


def _has_moved(drawn: LiveView | None, view: LiveView) -> bool:
    """Whether a redraw would show something new: tokens are or were just flowing, or memory moved noticeably."""
    if drawn is None:
        return True
    for line, before, now in zip(view.lines, drawn.points, view.points, strict=True):
        last_before = before.values[-1] if before.values else 0.0
        last_now = now.values[-1] if now.values else 0.0
        if line.unit == "tokens/s" and (last_before or last_now):
            return True
        if abs(last_now - last_before) > _NOTICEABLE * max(last_before, last_now):
            return True
    return False
