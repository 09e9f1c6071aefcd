"""Memory against speed, one circle a precision, its quality written beside it: a static picture. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from workbench.number_text import three_digits
from workbench.tradeoff import MeasuredMethod

__all__ = ["round_steps", "tradeoff_svg", "variant_words"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 300, 64, 44, 16, 120
_COLORS = ("#3b8ec4", "#d5642b", "#159c78", "#b06ab3", "#8a8f00", "#c0507a")


def tradeoff_svg(variants: Sequence[MeasuredMethod]) -> str:
    """Inline SVG in the page's own text colour; empty where nothing was measured."""
    measured = [variant for variant in variants if variant.weight_bytes and variant.tokens_per_s]
    if not measured:
        return ""
    most_bytes = max(variant.weight_bytes for variant in measured) * 1.08
    most_speed = max(variant.tokens_per_s for variant in measured) * 1.15
    marks = "".join(_mark(variant, index, most_bytes, most_speed) for index, variant in enumerate(measured))
    words = ". ".join(f"{variant.method}: {variant_words(variant)}" for variant in measured)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" style="max-width:{_WIDTH}px" role="img" '
        f'aria-label="{html.escape(words)}" fill="currentColor" font-size="12" font-family="sans-serif">'
        f"{_axes(most_bytes, most_speed)}{marks}</svg>"
    )


def variant_words(variant: MeasuredMethod) -> str:
    """The figures of one variant in words."""
    if variant.problem:
        return variant.problem
    parts = [f"{variant.weight_bytes / 1e6:,.0f} MB", f"{three_digits(variant.tokens_per_s)} tokens/s"]
    if variant.top1_agreement is not None:
        parts.append(f"{variant.top1_agreement:.0%} the same choice")
    if variant.perplexity is not None:
        parts.append(f"perplexity {variant.perplexity:.2f}")
    return ", ".join(parts)


def _x(num_bytes: float, most_bytes: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * num_bytes / most_bytes


def _y(speed: float, most_speed: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * speed / most_speed


def _mark(variant: MeasuredMethod, index: int, most_bytes: float, most_speed: float) -> str:
    x, y = _x(variant.weight_bytes, most_bytes), _y(variant.tokens_per_s, most_speed)
    quality = "" if variant.top1_agreement is None else f" {variant.top1_agreement:.0%}"
    return (
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="{_COLORS[index % len(_COLORS)]}"/>'
        f'<text x="{x + 11:.0f}" y="{y + 4:.0f}">{html.escape(variant.method)}{quality}</text>'
    )


def _axes(most_bytes: float, most_speed: float) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    lines = (
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        "weights, MB; in percent: how often the next token is the same</text>"
        f'<text transform="translate(14 {(_TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">tokens/s</text>'
    )
    for num_mb in round_steps(most_bytes / 1e6):
        x = _x(num_mb * 1e6, most_bytes)
        lines += f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{num_mb:,g}</text>'
    for speed in round_steps(most_speed):
        y = _y(speed, most_speed)
        lines += f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{speed:,g}</text>'
    return lines


def round_steps(most: float) -> list[float]:
    """Three to seven round numbers from 0 up to `most`."""
    size = 10.0 ** math.floor(math.log10(most))
    step = next(size * part for part in (0.2, 0.25, 0.5, 1, 2) if most / (size * part) < 6.5)
    return [round(step * count, 12) for count in range(int(most / step) + 1)]
