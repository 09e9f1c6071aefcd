"""Counts by bucket: a number is added in well under a microsecond, percentiles are read between the bucket's ends."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import ConfigError

__all__ = ["SECONDS", "SIZES", "Histogram", "HistogramView"]

# From a tenth of a millisecond to five minutes, about three a decade.
SECONDS = (
    1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0,
)  # fmt: skip
SIZES = tuple(float(2**power) for power in range(18))


@dataclass(frozen=True)
class HistogramView:
    """A copy: `counts[i]` numbers lay above `bounds[i - 1]` and at most at `bounds[i]`; the last count is of larger
    ones."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many numbers there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Their mean; None if there were none."""
        return self.total / self.count if self.count else None

    def percentile(self, share: float) -> float | None:
        """The number that `share` (0 to 1) of all do not exceed, by position within its bucket; None if there are
        none. What lies beyond the last bound is given as that bound."""
        if not 0 <= share <= 1:
            raise ConfigError(f"share={share!r}: must be from 0 to 1")
        wanted, below = share * self.count, 0
        if not self.count:
            return None
        for index, count in enumerate(self.counts[:-1]):
            if count and below + count >= wanted:
                low = self.bounds[index - 1] if index else 0.0
                return low + (self.bounds[index] - low) * max(0.0, wanted - below) / count
            below += count
        return self.bounds[-1]


class Histogram:
    """Written by one thread, read by any. `bounds` are the upper ends of the buckets, ascending."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(float(bound) for bound in bounds)
        if not self._bounds or list(self._bounds) != sorted(set(self._bounds)):
            raise ConfigError(f"bounds={bounds!r}: ascending numbers are needed")
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one number."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def view(self) -> HistogramView:
        """What was counted so far."""
        return HistogramView(self._bounds, tuple(self._counts), self._total)
