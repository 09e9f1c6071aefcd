"""A figure over several runs: the middle one, and how far the others are from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Spread", "percentile"]


@dataclass(frozen=True)
class Spread:
    """Median, least and most of the runs, in the figure's unit."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """The spread of what is known; None where nothing is."""
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known)) if known else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The least value that `percent` of all do not exceed (nearest rank); None for no values."""
    if not values:
        return None
    rank = max(1, math.ceil(percent / 100 * len(values)))
    return sorted(values)[rank - 1]
