"""Figures as pure functions: numbers in, plotly figures out. Nothing here samples, draws or knows a widget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from widgets.chart_rows import ChartLine, ChartRow
from workbench.telemetry import Series, SeriesView

__all__ = [
    "LiveView",
    "Measurements",
    "live_figure",
    "live_layout",
    "live_over",
    "live_summary",
    "live_updates",
    "live_view",
    "live_words",
]

# What is still written to, or a copy of what was measured up to some time.
Measurements = Series | SeriesView

# Told apart by dash as well as by colour; the colours (after Okabe and Ito) keep 3:1 against white and against #111.
_COLORS = ("#3b8ec4", "#d5642b", "#159c78", "#b06ab3", "#8a8f00", "#c0507a")
_DASHES = (
    *("solid", "dash", "dot", "dashdot", "longdash", "longdashdot"),
    *("2px,6px", "12px,3px", "8px,3px,2px,3px,2px,3px", "16px,4px,4px,4px", "1px,4px,8px,4px", "20px,8px"),
)
# Areas on top of each other are told apart by these.
_PATTERNS = ("", "/", ".", "x", "-", "\\", "|", "+")
_ALARM = "#c8452f"
_NO_FILL = "rgba(0,0,0,0)"
_GRID = "rgba(128,128,128,0.35)"
# Numbers in one update of all lines together: 8 to 9 kB as JSON.
_NUMBERS_PER_UPDATE = 1100
_MOST_POINTS = 60
_ROW_HEIGHT_PX = 96
_MARGIN_PX = {"l": 62, "r": 8, "t": 20, "b": 34}


@dataclass(frozen=True)
class LiveView:
    """What to draw: for each line of each row its values on one time grid, None where nothing was measured.

    `times_s` counts back from now, so that all are <= 0.
    """

    rows: tuple[ChartRow, ...]
    times_s: tuple[float, ...]
    values: tuple[tuple[tuple[float | None, ...], ...], ...]

    def lines(self) -> list[tuple[ChartRow, ChartLine, tuple[float | None, ...]]]:
        """Every line with its row and its values, in the order of the figure's traces."""
        return [
            (row, line, values)
            for row, of_row in zip(self.rows, self.values, strict=True)
            for line, values in zip(row.lines, of_row, strict=True)
        ]


def live_view(series: Mapping[str, Measurements], rows: Sequence[ChartRow], now_s: float, window_s: float) -> LiveView:
    """Cut the last `window_s` seconds out of the series, onto a grid that is as fine as a small update allows.

    Each value is the highest of its piece of time. Pieces lie at fixed times, so that a curve moves without flicker.
    """
    num_lines = sum(len(row.lines) for row in rows)
    num_points = max(12, min(_MOST_POINTS, _NUMBERS_PER_UPDATE // max(1, num_lines)))
    step_s = window_s / num_points
    last_piece = math.floor(now_s / step_s)
    first_piece = last_piece - num_points + 1
    return LiveView(
        rows=tuple(rows),
        times_s=tuple(round((index + 1 - num_points) * step_s, 1) for index in range(num_points)),
        values=tuple(
            tuple(
                _up_to_now(_on_grid(series.get(line.series), line, first_piece, last_piece, step_s), row)
                for line in row.lines
            )
            for row in rows
        ),
    )


def _on_grid(
    series: Measurements | None, line: ChartLine, first_piece: int, last_piece: int, step_s: float
) -> tuple[float | None, ...]:
    values: list[float | None] = [None] * (last_piece - first_piece + 1)
    if series is None:
        return tuple(values)
    view = series.view(since_s=first_piece * step_s) if isinstance(series, Series) else series
    for time_s, value in zip(view.times_s, view.values, strict=True):
        slot = math.floor(time_s / step_s) - first_piece
        scaled = _rounded(value / line.scale)
        if 0 <= slot < len(values) and (values[slot] is None or scaled > values[slot]):
            values[slot] = scaled
    return _bridged(values)


def _bridged(values: list[float | None]) -> tuple[float | None, ...]:
    """A beat that came a little late leaves its piece empty: single gaps take the value before them."""
    return tuple(
        values[index - 1] if value is None and 0 < index < len(values) - 1 and values[index + 1] is not None else value
        for index, value in enumerate(values)
    )


def _up_to_now(values: tuple[float | None, ...], row: ChartRow) -> tuple[float | None, ...]:
    """Areas on top of each other fall to 0 where nothing is measured: in the piece that has just begun they go on."""
    return (*values[:-1], values[-2]) if row.is_stacked and values[-1] is None else values


def _rounded(value: float) -> float:
    """Four digits: more can't be seen, and each costs a byte in every update."""
    return float(f"{value:.4g}")


def live_updates(view: LiveView) -> list[dict[str, tuple[float | None, ...]]]:
    """New `y` for each trace of `live_figure`, in its order."""
    return [{"y": values} for _, _, values in view.lines()]


def live_figure(view: LiveView, threshold: float | None = None) -> go.Figure:
    """One small chart per row over the same seconds. Transparent, so that it takes the page's theme."""
    figure = make_subplots(rows=len(view.rows), cols=1, shared_xaxes=True, vertical_spacing=_spacing(len(view.rows)))
    num_in_legend = 0
    for number, (row, of_row) in enumerate(zip(view.rows, view.values, strict=True), 1):
        # One line in a row is named by the row's title. All others share a legend, so no two may look alike.
        in_legend, is_line = len(row.lines) > 1, not row.is_stacked
        for index, (line, values) in enumerate(zip(row.lines, of_row, strict=True)):
            look = _look(num_in_legend if in_legend and is_line else index, is_line=is_line)
            num_in_legend += in_legend and is_line
            trace = _trace(row, line, look, view.times_s, values)
            trace.showlegend = in_legend
            figure.add_trace(trace, row=number, col=1)
    figure.update_layout(
        height=_height_px(len(view.rows)),
        margin=_MARGIN_PX,
        paper_bgcolor=_NO_FILL,
        plot_bgcolor=_NO_FILL,
        showlegend=True,
        # Areas on top of each other would turn the order around.
        legend={
            "traceorder": "normal",
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "bgcolor": _NO_FILL,
            "font": {"size": 11},
        },
        hovermode="x unified",
        dragmode=False,
        font={"size": 11},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, fixedrange=True, ticklabelstandoff=3, ticksuffix=" s")
    figure.update_yaxes(rangemode="tozero", gridcolor=_GRID, zeroline=False, fixedrange=True, nticks=4)
    for number, row in enumerate(view.rows, 1):
        title = row.title if not row.unit else f"{row.title}<br>{row.unit}"
        figure.update_yaxes(title_text=title, title_standoff=4, row=number, col=1)
        if row.limit == 100.0:
            figure.update_yaxes(range=[0, 105], row=number, col=1)
    figure.update_layout(live_layout(view, threshold))
    return figure


def _look(index: int, *, is_line: bool) -> dict[str, object]:
    """How the `index`-th line, or area, is drawn."""
    color = _COLORS[(index + index // len(_DASHES)) % len(_COLORS)]
    if is_line:
        return {"line": {"color": color, "dash": _DASHES[index % len(_DASHES)], "width": 2}}
    pattern = {"shape": _PATTERNS[index % len(_PATTERNS)], "size": 6, "solidity": 0.3}
    return {"line": {"color": color, "width": 1}, "fillpattern": pattern}


def _trace(
    row: ChartRow, line: ChartLine, look: Mapping[str, object], times_s: Sequence[float], values: Sequence[float | None]
) -> go.Scatter:
    return go.Scatter(
        x=times_s,
        y=values,
        name=line.label,
        mode="lines",
        stackgroup=row.title if row.is_stacked else None,
        hovertemplate=f"{line.label}: %{{y}} {row.unit}<extra></extra>",
        **look,
    )


def live_layout(view: LiveView, threshold: float | None) -> dict[str, object]:
    """What a change of window or threshold changes in the layout: time axes and threshold lines."""
    shapes = []
    for number, row in enumerate(view.rows, 1):
        if threshold is None or row.limit is None or row.unit != "GB":
            continue
        axis = "" if number == 1 else str(number)
        level = threshold * row.limit
        shapes.append(
            {
                "type": "line",
                "xref": f"x{axis} domain",
                "yref": f"y{axis}",
                "x0": 0,
                "x1": 1,
                "y0": level,
                "y1": level,
                "line": {"color": _ALARM, "dash": "dot", "width": 1.5},
            }
        )
    axes = {f"xaxis{'' if number == 1 else number}": _x_range(view) for number in range(1, len(view.rows) + 1)}
    return {"shapes": shapes, **axes}


def _x_range(view: LiveView) -> dict[str, list[float]]:
    return {"range": [view.times_s[0], 0.0]}


def live_over(view: LiveView, threshold: float | None) -> list[str]:
    """Rows in GB whose newest value is above the threshold, in words."""
    over = []
    for row, of_row in zip(view.rows, view.values, strict=True):
        if threshold is None or row.limit is None or row.unit != "GB":
            continue
        newest = [_last(values) or 0.0 for values in of_row]
        now = sum(newest) if row.is_stacked else max(newest, default=0.0)
        if now > threshold * row.limit:
            over.append(f"{row.title}: {now:.1f} of {row.limit:.1f} GB is above {threshold:.0%}")
    return over


def live_summary(view: LiveView) -> str:
    """The plot in a sentence per line, for those who can't see it."""
    words = live_words(view)
    return " ".join(f"{line.label}: {words.get(line.label, 'no values yet')}." for _, line, _ in view.lines())


def live_words(view: LiveView) -> dict[str, str]:
    """Of each line that has values the newest and the highest, by the line's name."""
    words = {}
    for row, line, values in view.lines():
        present = [value for value in values if value is not None]
        if present:
            unit = f" {row.unit}" if row.unit else ""
            words[line.label] = f"{_words(present[-1])}{unit} now, at most {_words(max(present))}"
    return words


def _words(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _height_px(num_rows: int) -> int:
    return _MARGIN_PX["t"] + _MARGIN_PX["b"] + num_rows * _ROW_HEIGHT_PX


def _spacing(num_rows: int) -> float:
    return 0.0 if num_rows < 2 else min(0.06, 0.3 / (num_rows - 1))
