"""Counts over the results of an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import fmean

__all__ = ["mean_or_none", "share_of_each"]


def share_of_each(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    return dict(Counter(names).most_common())


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there, rounded to 4 places; None if there are none."""
    known = [value for value in values if value is not None]
    return round(fmean(known), 4) if known else None
