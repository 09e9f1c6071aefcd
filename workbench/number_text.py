"""Measured numbers as people read them."""

from __future__ import annotations

import math

__all__ = ["three_digits"]


def three_digits(value: float) -> str:
    """Three digits that count, never an exponent: 0.411, 12.3, 123, 26,500; what is not finite as it is."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    text = f"{rounded:,.{max(0, min(decimals, 6))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
