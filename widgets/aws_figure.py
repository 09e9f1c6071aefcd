"""What instances cost and give, as a plotly figure. Advice in, figure out; asks nobody."""

from __future__ import annotations

import plotly.graph_objects as go

from workbench.aws import Advice, AdviceRow

__all__ = ["advice_figure", "advice_summary"]

_BAR = "#3b8ec4"
_BEST = "#159c78"
_NO_FILL = "rgba(0,0,0,0)"
_GRID = "rgba(128,128,128,0.35)"
_ROW_PX = 26


def advice_figure(advice: Advice, max_rows: int = 12) -> go.Figure:
    """One bar an instance type: US dollars per million generated tokens, cheapest on top; speed and price beside it.

    Types without a known price are left out. The best bar is told apart by its pattern as well as by its colour.
    """
    rows = [row for row in advice.rows if row.usd_per_million_tokens is not None][:max_rows]
    figure = go.Figure(
        go.Bar(
            x=[round(row.usd_per_million_tokens, 4) for row in rows],
            y=[row.instance.name for row in rows],
            orientation="h",
            text=[_words(row) for row in rows],
            textposition="auto",
            marker={
                "color": [_BEST if number == 0 else _BAR for number in range(len(rows))],
                "pattern": {"shape": ["/" if number == 0 else "" for number in range(len(rows))]},
            },
            hovertemplate="%{y}: %{x} USD per million tokens<br>%{text}<extra></extra>",
        )
    )
    figure.update_layout(
        height=90 + _ROW_PX * max(1, len(rows)),
        margin={"l": 110, "r": 8, "t": 8, "b": 44},
        paper_bgcolor=_NO_FILL,
        plot_bgcolor=_NO_FILL,
        showlegend=False,
        dragmode=False,
        font={"size": 12},
    )
    figure.update_xaxes(
        title_text="US dollars per million tokens", gridcolor=_GRID, rangemode="tozero", fixedrange=True
    )
    figure.update_yaxes(autorange="reversed", fixedrange=True)
    return figure


def advice_summary(advice: Advice) -> str:
    """The figure in a sentence, for those who can't see it."""
    best = advice.best
    if best is None:
        return f"No instance serves this plan; {len(advice.rejections)} were looked at."
    cost = best.usd_per_million_tokens
    price = f"{cost:.3g} US dollars per million tokens" if cost is not None else "an unknown price"
    return (
        f"{len(advice.rows)} instance types serve this plan. The cheapest is {best.instance.name}: {price}, "
        f"about {best.tokens_per_second:.0f} tokens per second in all."
    )


def _words(row: AdviceRow) -> str:
    price = f"{row.price.usd_per_hour:.2f} USD/h" if row.price else "price unknown"
    return f"{row.tokens_per_second:,.0f} tokens/s, {price}"
