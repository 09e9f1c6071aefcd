"""Figures as pure functions: numbers in, plotly figures out. Nothing here samples, draws or knows a widget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.telemetry import Series, SeriesView

__all__ = [
    "LiveLine",
    "LiveView",
    "live_figure",
    "live_lines",
    "live_range",
    "live_summary",
    "live_updates",
    "live_view",
]

_GB = 1e9
# Told apart by dash as well as by colour; the colours (after Okabe and Ito) keep 3:1 against white and against #111.
_MEMORY_STYLES = (("#3b8ec4", "solid"), ("#159c78", "dash"), ("#b06ab3", "dot"), ("#8a8f00", "dashdot"))
_RATE_STYLE = ("#d5642b", "solid")
_MIN_RANGE_S = 30.0
_NO_FILL = "rgba(0,0,0,0)"
_GRID = "rgba(128,128,128,0.35)"


@dataclass(frozen=True)
class LiveLine:
    """One line of the live plot: which series, its name in words, what its values are divided by, and its unit."""

    series: str
    label: str
    scale: float
    unit: str


@dataclass(frozen=True)
class LiveView:
    """What to draw: per line the points of the window, `times_s` counted back from now (so all are <= 0)."""

    lines: tuple[LiveLine, ...]
    points: tuple[SeriesView, ...]


def live_lines(devices: Sequence[str] = ()) -> tuple[LiveLine, ...]:
    """The lines of the live plot: memory of the process, of each device ("cuda:0"), then tokens per second."""
    return (
        LiveLine("process_memory_bytes", "This process", _GB, "GB"),
        *(LiveLine(f"{device}_used_bytes", f"{device}, in use", _GB, "GB") for device in devices),
        LiveLine("generated_tokens_per_s", "Generation", 1.0, "tokens/s"),
    )


def live_view(series: Mapping[str, Series], lines: Sequence[LiveLine], now_s: float, window_s: float) -> LiveView:
    """Cut the last `window_s` seconds out of the series, rounded to what can be seen to keep updates small."""
    return LiveView(tuple(lines), tuple(_points(series.get(line.series), line, now_s, window_s) for line in lines))


def _points(series: Series | None, line: LiveLine, now_s: float, window_s: float) -> SeriesView:
    if series is None:
        return SeriesView((), ())
    view = series.view(since_s=now_s - window_s)
    return SeriesView(
        times_s=tuple(round(time_s - now_s, 1) for time_s in view.times_s),
        values=tuple(round(value / line.scale, 3) for value in view.values),
    )


def live_updates(view: LiveView) -> list[dict[str, tuple[float, ...]]]:
    """New `x` and `y` for each trace of `live_figure`, in its order."""
    return [{"x": points.times_s, "y": points.values} for points in view.points]


def live_range(view: LiveView, window_s: float) -> list[float]:
    """Seconds on the time axis: what there is, at least half a minute, at most the window."""
    oldest_s = min((points.times_s[0] for points in view.points if points.times_s), default=0.0)
    return [-min(window_s, max(_MIN_RANGE_S, -oldest_s)), 0.0]


def live_figure(view: LiveView, window_s: float) -> go.Figure:
    """Memory above, tokens per second below, over the same seconds. Transparent, so that it takes the page's theme."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for number, (line, points) in enumerate(zip(view.lines, view.points, strict=True)):
        row = 2 if line.unit == "tokens/s" else 1
        color, dash = _RATE_STYLE if row == 2 else _MEMORY_STYLES[number % len(_MEMORY_STYLES)]
        trace = go.Scatter(
            x=points.times_s,
            y=points.values,
            name=line.label,
            mode="lines",
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"{line.label}: %{{y}} {line.unit}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=1)
    num_memory_lines = sum(line.unit == "GB" for line in view.lines)
    figure.update_layout(
        height=290,
        margin={"l": 52, "r": 8, "t": 26 if num_memory_lines > 1 else 8, "b": 40},
        paper_bgcolor=_NO_FILL,
        plot_bgcolor=_NO_FILL,
        showlegend=num_memory_lines > 1,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": _NO_FILL},
        hovermode="x unified",
        dragmode=False,
        font={"size": 12},
    )
    figure.update_xaxes(
        range=live_range(view, window_s), gridcolor=_GRID, zeroline=False, fixedrange=True, ticklabelstandoff=4
    )
    figure.update_xaxes(title_text="seconds before the last update", title_standoff=6, row=2, col=1)
    figure.update_yaxes(rangemode="tozero", gridcolor=_GRID, zeroline=False, fixedrange=True, nticks=4)
    figure.update_yaxes(title_text="memory, GB", title_standoff=8, row=1, col=1)
    figure.update_yaxes(title_text="tokens/s", title_standoff=8, row=2, col=1)
    return figure


def live_summary(view: LiveView) -> str:
    """The plot in a sentence per line, for those who can't see it."""
    sentences = []
    for line, points in zip(view.lines, view.points, strict=True):
        if not points.values:
            sentences.append(f"{line.label}: no values yet.")
            continue
        digits = 1 if line.unit == "tokens/s" else 2
        now, highest = points.values[-1], max(points.values)
        sentences.append(f"{line.label}: {now:.{digits}f} {line.unit} now, at most {highest:.{digits}f}.")
    return " ".join(sentences)
