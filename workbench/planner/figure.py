"""The roofline of a device with a model's steps on it. Pure: rates and points in, a plotly figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

if TYPE_CHECKING:
    from workbench.planner.rates import DeviceRates
    from workbench.planner.result import RooflinePoint

__all__ = ["roofline_figure"]

# Okabe and Ito's palette, told apart with every kind of colour blindness; symbols differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_SYMBOLS = ("circle", "square", "diamond", "cross")
_SPAN = 30.0


def roofline_figure(
    rates: DeviceRates, dtype: str, points: Sequence[RooflinePoint], *, title: str = "", height: int = 360
) -> go.Figure:
    """Operations a second over operations a byte, both logarithmic: the roof, its ridge, and one marker a step.

    A step left of the ridge waits for memory, one right of it for arithmetic; how far it lies below the roof is what
    starting operations and everything else costs.
    """
    flops = rates.flops_of(dtype)
    ridge = flops / rates.read_bytes_per_s
    intensities = [point.operations / point.bytes_read for point in points if point.bytes_read] or [ridge]
    low, high = min([*intensities, ridge]) / _SPAN, max([*intensities, ridge]) * _SPAN
    figure = go.Figure()
    figure.add_scatter(
        x=[low, ridge, high],
        y=[low * rates.read_bytes_per_s, flops, flops],
        mode="lines",
        name=f"roof in {dtype}",
        line={"color": "#444444", "width": 2},
        hovertemplate="%{x:.3g} operations/byte<br>%{y:.3s}op/s<extra></extra>",
    )
    figure.add_vline(x=ridge, line_dash="dot", line_color="#888888", annotation_text=f"{ridge:.0f} operations/byte")
    for number, point in enumerate(point for point in points if point.bytes_read):
        figure.add_scatter(
            x=[point.operations / point.bytes_read],
            y=[point.operations / point.seconds],
            mode="markers",
            name=point.name,
            marker={
                "size": 12,
                "color": _COLOURS[number % len(_COLOURS)],
                "symbol": _SYMBOLS[number % len(_SYMBOLS)],
            },
            hovertemplate=f"{point.name}: {point.seconds * 1e3:.3g} ms<br>%{{x:.3g}} operations/byte"
            "<br>%{y:.3s}op/s<extra></extra>",
        )
    figure.update_layout(
        title=f"{title}: {rates.read_bytes_per_s / 1e9:,.0f} GB/s, {flops / 1e12:,.2g} TFLOP/s ({rates.origin})",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        xaxis={"type": "log", "title": "operations a byte"},
        yaxis={"type": "log", "title": "operations a second"},
        legend={"orientation": "h", "y": -0.3},
    )
    return figure
