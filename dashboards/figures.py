"""The app's own figures as pure functions: values in, plotly figures or rows out. Knows no component."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from workbench.conversation import Alternative, ScoredToken, perplexity
from workbench.engine import SamplingParams

__all__ = [
    "HEAT_SCALES",
    "NextToken",
    "heat_spans",
    "heat_summary",
    "next_token_figure",
    "next_tokens",
    "visible",
]

_MODEL_COLOR, _SAMPLED_COLOR = "#3b8ec4", "#d5642b"
_NO_FILL = "rgba(0,0,0,0)"
_GRID = "rgba(128,128,128,0.35)"
# Both between 0 (sure) and 1. Entropy is drawn full at that of ten equal chances.
HEAT_SCALES = {
    "How unexpected the token was": lambda token: None if token.probability is None else 1 - token.probability,
    "How open the choice was": lambda token: (
        None if token.entropy_nats is None else min(1.0, token.entropy_nats / math.log(10))
    ),
}


def visible(text: str) -> str:
    """A token with blanks and line breaks that can be seen."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") or "(part of a character)"


def heat_spans(tokens: Sequence[ScoredToken], scale: str) -> list[tuple[str, float | None]]:
    """Texts and values for a highlighted text, one for each token."""
    value = HEAT_SCALES[scale]
    # A zero-width blank keeps the place of a token that shows nothing.
    return [(token.text or "\u200b", _rounded(value(token))) for token in tokens]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def heat_summary(tokens: Sequence[ScoredToken]) -> str:
    """The map in a sentence, for those who can't see it."""
    known = [token for token in tokens if token.logprob is not None]
    if not known:
        return f"{len(tokens)} tokens, none with a likelihood."
    worst = min(known, key=lambda token: token.logprob)
    first = sum(token.rank == 1 for token in known)
    ranks = f"{first} were the model's first choice; " if any(token.rank for token in known) else ""
    return (
        f"{len(tokens)} tokens, perplexity {perplexity(known):.2f}; {ranks}"
        f"the least expected is “{visible(worst.text)}” ({worst.probability:.2%})."
    )


@dataclass(frozen=True)
class NextToken:
    """A token that may come next: its probability by the model, and after the sampling settings."""

    text: str
    probability: float
    sampled: float


def next_tokens(alternatives: Sequence[Alternative], params: SamplingParams) -> list[NextToken]:
    """What the sampling settings make of the likeliest tokens: temperature, then top-k, top-p and min-p, as the
    sampler applies them; penalties are left out."""
    probabilities = [alternative.probability for alternative in alternatives]
    if params.is_greedy:
        sampled = [1.0 if index == 0 else 0.0 for index in range(len(alternatives))]
    else:
        # Tokens beyond the list share what is left; their own part after sharpening is not known and left out.
        heated = [p ** (1 / params.temperature) for p in probabilities]
        sampled = _truncated([p / sum(heated) for p in heated], params)
    return [
        NextToken(alternative.text, p, q)
        for alternative, p, q in zip(alternatives, probabilities, sampled, strict=True)
    ]


def _truncated(probabilities: list[float], params: SamplingParams) -> list[float]:
    kept, mass = [], 0.0
    for index, p in enumerate(probabilities):
        is_in = (not params.top_k or index < params.top_k) and p >= params.min_p * probabilities[0]
        is_in = is_in and (mass < params.top_p or index == 0)
        mass += p
        kept.append(p if is_in else 0.0)
    return [p / sum(kept) for p in kept]


def next_token_figure(tokens: Sequence[NextToken]) -> go.Figure:
    """Bars of the likeliest next tokens, the likeliest on top: by the model, and as they are sampled."""
    # Equal spellings are different tokens: their places keep the bars apart.
    places, names = list(range(len(tokens))), [visible(token.text) for token in tokens]
    figure = go.Figure()
    for label, color, values in (
        ("by the model", _MODEL_COLOR, [token.probability for token in tokens]),
        ("as it is sampled", _SAMPLED_COLOR, [token.sampled for token in tokens]),
    ):
        figure.add_trace(
            go.Bar(
                x=values,
                y=places,
                customdata=names,
                name=label,
                orientation="h",
                marker={"color": color},
                hovertemplate=f"%{{customdata}} {label}: %{{x:.2%}}<extra></extra>",
            )
        )
    figure.update_layout(
        height=120 + 26 * len(tokens),
        margin={"l": 8, "r": 8, "t": 30, "b": 30},
        paper_bgcolor=_NO_FILL,
        plot_bgcolor=_NO_FILL,
        barmode="group",
        bargap=0.25,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": _NO_FILL},
        dragmode=False,
        font={"size": 12, "color": "#808080"},
    )
    figure.update_xaxes(tickformat=".0%", gridcolor=_GRID, fixedrange=True, rangemode="tozero")
    figure.update_yaxes(
        autorange="reversed", automargin=True, fixedrange=True, tickmode="array", tickvals=places, ticktext=names
    )
    return figure
