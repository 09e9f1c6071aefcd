"""A report as one HTML page with plots, which needs no network: plotly's code is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from workbench.benchmark.figures import FIGURES, Report
from workbench.benchmark.formats import in_words
from workbench.benchmark.load_report import LoadReport

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["load_page", "report_page"]

# Okabe and Ito's colours, told apart by everybody.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; color: #222;
  background: #fff }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }}
th, td {{ padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


def report_page(report: Report) -> str:
    """Bars of each figure with the spread of its runs, the same figures as a table, and the machine."""
    asked = report.workload
    said = (
        f"{asked.batch_size} requests at once, {asked.prompt_tokens} tokens of prompt and {asked.new_tokens} new ones "
        f"each. Medians of {asked.runs} runs after {asked.warmup_runs} to warm up; the lines on the bars go from the "
        "least to the most."
    )
    body = [_paragraph(said), _paragraph(_facts(report.machine)), _plot(_bars(report)), _report_table(report)]
    body += [_paragraph(f"{one.choice.label}: {one.error}") for one in report.engines if one.error]
    return _PAGE.format(title=escape(f"Speed of {report.model}"), body="\n".join(body))


def load_page(report: LoadReport) -> str:
    """First tokens and gaps under load: how they are spread, and how they went over time."""
    rows = [[title, *cells] for title, cells in report.table()]
    body = [
        _paragraph(report.said()),
        _paragraph(_facts(report.machine)),
        _plot(_over_time(report)),
        _table(["", "50 %", "90 %", "99 %", "most"], rows),
    ]
    body += [_paragraph(f"{count} times: {error}") for error, count in report.errors().items()]
    return _PAGE.format(title=escape(f"{report.model} under load"), body="\n".join(body))


def _bars(report: Report) -> go.Figure:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    measured = [one for one in report.engines if one.figures]
    keys = [key for key in FIGURES if any(key in one.figures for one in measured)]
    columns = 3
    figure = make_subplots(
        rows=max(1, -(-len(keys) // columns)),
        cols=columns,
        subplot_titles=[f"{FIGURES[key].title}, {FIGURES[key].unit}" for key in keys],
        vertical_spacing=0.14,
    )
    for place, key in enumerate(keys):
        shown = [(number, one) for number, one in enumerate(measured) if key in one.figures]
        medians = [one.figures[key].median for _, one in shown]
        bar = go.Bar(
            x=[one.choice.label for _, one in shown],
            y=medians,
            marker_color=[_COLORS[number % len(_COLORS)] for number, _ in shown],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [one.figures[key].maximum - one.figures[key].median for _, one in shown],
                "arrayminus": [one.figures[key].median - one.figures[key].minimum for _, one in shown],
            },
            text=[in_words(value) for value in medians],
            # At the foot of the bar: its end is where the line of the spread runs.
            textposition="inside",
            insidetextanchor="start",
            textangle=0,
            showlegend=False,
        )
        figure.add_trace(bar, row=place // columns + 1, col=place % columns + 1)
    figure.update_layout(template="plotly_white", height=330 * max(1, -(-len(keys) // columns)))
    return figure


def _over_time(report: LoadReport) -> go.Figure:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    answered = [one for one in report.answers if one.error is None]
    figure = make_subplots(rows=1, cols=2, subplot_titles=["by arrival", "share of requests that had it by then"])
    for name, color, values in (
        ("first token", _COLORS[0], [(one.arrived_s, one.ttft_s) for one in answered]),
        ("whole answer", _COLORS[1], [(one.arrived_s, one.total_s) for one in answered]),
    ):
        known = [(at_s, value) for at_s, value in values if value is not None]
        ordered = sorted(value for _, value in known)
        points = go.Scatter(x=[at for at, _ in known], y=[value for _, value in known], mode="markers", name=name,
                            marker_color=color)  # fmt: skip
        share = go.Scatter(x=ordered, y=[(number + 1) / len(ordered) for number in range(len(ordered))], mode="lines",
                           line={"shape": "hv"}, name=name, marker_color=color, showlegend=False)  # fmt: skip
        figure.add_trace(points, row=1, col=1)
        figure.add_trace(share, row=1, col=2)
    figure.update_xaxes(title="arrival, s", row=1, col=1)
    figure.update_yaxes(title="s", row=1, col=1)
    figure.update_xaxes(title="s", row=1, col=2)
    figure.update_layout(template="plotly_white", height=420)
    return figure


def _plot(figure: go.Figure) -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=True)
    return html


def _report_table(report: Report) -> str:
    rows = [
        [
            f"{one.choice.label}, {FIGURES[key].title}",
            f"{in_words(spread.median)} {FIGURES[key].unit}",
            in_words(spread.minimum),
            in_words(spread.maximum),
            "" if (ratio := report.ratio(one, key)) is None else f"{ratio:.2f}",
        ]
        for one in report.engines
        for key, spread in one.figures.items()
    ]
    return _table(["", "median", "least", "most", "ours better by"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _facts(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"
