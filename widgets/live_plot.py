"""A live plot of rows of series, and the three that exist ready-made. Draws what a sampler measured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets

from widgets.cell_run import runs_unwatched
from widgets.chart_rows import ChartRow, memory_rows, owners_row, throughput_rows, utilisation_row
from widgets.figures import (
    LiveView,
    Measurements,
    live_figure,
    live_layout,
    live_over,
    live_summary,
    live_updates,
    live_view,
    live_words,
)
from widgets.live_figure import LiveFigure, import_frames
from widgets.model_probe import ModelProbe, check_source, engine_of
from widgets.monitor_controls import WINDOWS_S, MonitorControls, check_threshold, check_window
from widgets.part import Part
from workbench.backends import BackendStatus, detect
from workbench.telemetry import DeviceMemory, EngineRates, Probe, ProcessMemory, ProcessorUse, Sampler, SeriesView
from workbench.twin import Twin, is_headless

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU
    from workbench.session import Session

__all__ = ["LivePlot", "MemoryMonitor", "ThroughputMonitor", "gpu_probes"]

_BEAT_S = 1.0
# How often the words in the notebook follow a plot that is seen.
_KEEP_WORDS_EVERY_S = 60.0
# Never redrawn faster than 2 Hz, however fast a sampler beats that was handed in.
_MIN_REDRAW_S = 0.5
# A line that moved by less than this share of its peak looks the same; of processors, which are never quite still, by
# less than so many percent.
_NOTICEABLE = 0.01
_NOTICEABLE_PERCENT = 5.0


def gpu_probes(statuses: Sequence[BackendStatus]) -> list[DeviceMemory]:
    """A memory probe for each GPU that can be used."""
    return [
        DeviceMemory(device.index, device.uuid, backend=status.backend.name)
        for status in statuses
        if status.available and status.backend.device_type != "cpu"
        for device in status.devices
    ]


class LivePlot(Part, ipywidgets.VBox):
    """Memory, processors, speed, requests and KV use of the last `window_s` seconds, redrawn at 1 Hz while they move.

    `source` is an engine or a session (None: the machine only); `statuses` are the backends (None: looked up).
    Nothing is drawn while no browser shows it, while it is paused, or while nothing changes. A `sampler` that is handed
    in is left running by `close()`; without one the plot has its own. Exactly one FigureWidget: each carries 5 MB of
    JavaScript.

    Raises ConfigError for a source that is neither, for a window that is no time, and for a threshold outside 1 to 100.
    """

    # Until there is a sampler to leave.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _owns_sampler = False

    def __init__(
        self,
        source: Session | LlamaGPU | None = None,
        *,
        statuses: Sequence[BackendStatus] | None = None,
        sampler: Sampler | None = None,
        window_s: float = 120.0,
        threshold_percent: float | None = 90.0,
    ) -> None:
        check_window(window_s)
        check_threshold(threshold_percent)
        check_source(source)
        statuses = detect() if statuses is None else statuses
        self.rows = self._rows(statuses)
        # Enough for the longest window that can be chosen.
        capacity = round(max(window_s, *WINDOWS_S) / _BEAT_S) + 60
        self._sampler = sampler or Sampler(self._probes(source, statuses), _BEAT_S, capacity=capacity)
        self._owns_sampler = sampler is None
        self._drawn: LiveView | None = None
        self._drawn_at_s = self._kept_at_s = float("-inf")
        self._drawn_settings: tuple[float, float | None] = (window_s, threshold_percent)
        # While it is paused: the time that is shown, and everything measured up to then.
        self._held: tuple[float, Mapping[str, SeriesView]] | None = None
        self._lock = threading.Lock()
        if not is_headless():
            import_frames()
        empty = live_view({}, self.rows, 0.0, window_s)
        figure = live_figure(empty, _share(threshold_percent))
        self.figure = figure if is_headless() else LiveFigure(figure, self._lock)
        self.note = MonitorControls(
            self._redraw_next,
            summary=live_summary(empty),
            window_s=window_s,
            threshold_percent=threshold_percent,
            has_threshold=any(row.unit == "GB" for row in self.rows),
        )
        super().__init__([self.note] if is_headless() else [self.figure, self.note])
        self.add_class("wb-live")
        self._forget = self._sampler.observe(self._on_beat)
        self._sampler.start()

    @staticmethod
    def _rows(statuses: Sequence[BackendStatus]) -> tuple[ChartRow, ...]:
        return (*memory_rows(statuses), owners_row(statuses), utilisation_row(statuses), *throughput_rows())

    @staticmethod
    def _probes(source: Session | LlamaGPU | None, statuses: Sequence[BackendStatus]) -> list[Probe]:
        machine = [ProcessMemory(), *gpu_probes(statuses), ProcessorUse(statuses)]
        return machine if source is None else [*machine, EngineRates(source.stats), ModelProbe(engine_of(source))]

    @property
    def sampler(self) -> Sampler:
        """Where the numbers come from."""
        return self._sampler

    @property
    def is_paused(self) -> bool:
        """Whether it is held still."""
        return self.note.is_paused

    def pause(self) -> None:
        """Hold the picture still; measuring goes on."""
        self.note.pause(True)

    def resume(self) -> None:
        """Draw again, with all that was measured meanwhile."""
        self.note.pause(False)

    def draw(self) -> None:
        """Draw what has been measured up to now, seen or not."""
        self._held = self._measured() if self.is_paused else None
        self._draw(self._sampler.now_s())

    def close(self) -> None:
        """Stop drawing, end a sampler of its own, and take the widgets away."""
        self._forget()
        if self._owns_sampler:
            self._sampler.close()
        for child in self.children:
            child.close()
        super().close()

    def _redraw_next(self) -> None:
        """A setting changed or a view came into sight: the next beat draws, whatever happens."""
        self._drawn = None
        if not self.note.is_paused:
            self._held = None
        elif self._held is None:
            self._held = self._measured()
        self._keep_words()

    def _measured(self) -> tuple[float, Mapping[str, SeriesView]]:
        return self._sampler.now_s(), {name: series.view() for name, series in self._sampler.series.items()}

    def _on_beat(self, time_s: float) -> None:
        """Called by the sampler's thread."""
        if not (self.note.is_seen and self.figure.is_drawn):
            return
        held = self._held
        if held is not None:
            # The picture stands still, and follows its controls.
            if self._settings() != self._drawn_settings:
                self._draw(held[0], held[1])
        elif time_s - self._drawn_at_s >= _MIN_REDRAW_S:
            self._draw(time_s, only_if_moved=True)

    def _settings(self) -> tuple[float, float | None]:
        return self.note.window_s, self.note.threshold_percent

    def _draw(
        self, time_s: float, series: Mapping[str, Measurements] | None = None, *, only_if_moved: bool = False
    ) -> None:
        with self._lock:
            settings = self._settings()
            view = live_view(self._sampler.series if series is None else series, self.rows, time_s, settings[0])
            if only_if_moved and not _has_moved(self._drawn, view):
                return
            with self.figure.batch_update():
                for trace, update in zip(self.figure.data, live_updates(view), strict=True):
                    trace.update(update if settings == self._drawn_settings else {**update, "x": view.times_s})
                if settings != self._drawn_settings:
                    layout = live_layout(view, _share(settings[1]))
                    # An update leaves shapes that are there already where they are: it would take no line away.
                    self.figure.layout.shapes = layout.pop("shapes")
                    self.figure.update_layout(layout)
            self._drawn, self._drawn_at_s, self._drawn_settings = view, time_s, settings
            with self.note.hold_sync():
                self.note.summary = live_summary(view)
                self.note.alarm = "; ".join(live_over(view, _share(settings[1])))
        if time_s - self._kept_at_s >= _KEEP_WORDS_EVERY_S:
            self._kept_at_s = time_s
            self._keep_words()

    def twin(self) -> Twin:
        """What it plots, and each line's newest and highest value. In headless runs, and where a program runs the
        notebook, only the former: numbers and devices change from run to run and from machine to machine."""
        shown = ", ".join(dict.fromkeys(row.title.split(" of ")[0] for row in self.rows))
        rows = [("plot", f"{shown} over the last {self.note.window_s:.0f} s")]
        if not is_headless() and (self._saved is not None or not runs_unwatched()):
            view = live_view(self._sampler.series, self.rows, self._sampler.now_s(), self.note.window_s)
            rows += live_words(view).items()
        return Twin(type(self).__name__, tuple(rows))

    def _worded(self) -> tuple[ipywidgets.Widget, ...]:
        # Its words are numbers: they are kept now and then, or the notebook would never be at rest.
        return ()


class MemoryMonitor(LivePlot):
    """Memory of this process, by owner and of every GPU, and how busy the processors are; with a threshold line."""

    @staticmethod
    def _rows(statuses: Sequence[BackendStatus]) -> tuple[ChartRow, ...]:
        return (*memory_rows(statuses), owners_row(statuses), utilisation_row(statuses))


class ThroughputMonitor(LivePlot):
    """Tokens per second, time to first token, batch and queue, and KV use of an engine; live."""

    @staticmethod
    def _rows(statuses: Sequence[BackendStatus]) -> tuple[ChartRow, ...]:
        return throughput_rows()


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _has_moved(drawn: LiveView | None, view: LiveView) -> bool:
    """Whether a redraw would look different: a line grew, moved on with its ups and downs, or has another level."""
    if drawn is None:
        return True
    return any(
        _looks_different(before, now, row.unit)
        for (row, _, before), (_, _, now) in zip(drawn.lines(), view.lines(), strict=True)
    )


def _looks_different(before: Sequence[float | None], now: Sequence[float | None], unit: str) -> bool:
    if len(before) != len(now):
        return True
    peak = max((value for value in (*before, *now) if value is not None), default=0.0)
    slack = _NOTICEABLE_PERCENT if unit == "%" else _NOTICEABLE * peak
    return any(
        (old is None) != (new is None) or (old is not None and new is not None and abs(new - old) > slack)
        for old, new in zip(before, now, strict=True)
    )
