"""A bounded time series: a ring of (time, value) pairs. Knows nothing of units or of who writes it."""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass

from workbench.errors import ConfigError

__all__ = ["Series", "SeriesView"]


@dataclass(frozen=True)
class SeriesView:
    """A copy of a series, oldest first: `times_s[i]` belongs to `values[i]`."""

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)


class Series:
    """The newest `capacity` points. Memory is fixed at 16 bytes a point; one writer and many readers may share it."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity is {capacity}: a series holds 1 point or more")
        self._times_s = array("d", bytes(8 * capacity))
        self._values = array("d", bytes(8 * capacity))
        self._num_written = 0
        self._lock = threading.Lock()

    @property
    def capacity(self) -> int:
        """Points it can hold."""
        return len(self._values)

    def __len__(self) -> int:
        return min(self._num_written, self.capacity)

    def append(self, time_s: float, value: float) -> None:
        """Add the newest point; the oldest makes room."""
        with self._lock:
            slot = self._num_written % self.capacity
            self._times_s[slot] = time_s
            self._values[slot] = value
            self._num_written += 1

    @property
    def last(self) -> float | None:
        """The newest value, or None while empty."""
        with self._lock:
            if not self._num_written:
                return None
            return self._values[(self._num_written - 1) % self.capacity]

    def view(self, since_s: float = float("-inf")) -> SeriesView:
        """A copy of the points at or after `since_s`, oldest first."""
        with self._lock:
            count = len(self)
            first = self._num_written - count
            slots = [index % self.capacity for index in range(first, self._num_written)]
            kept = [slot for slot in slots if self._times_s[slot] >= since_s]
            return SeriesView(
                times_s=tuple(self._times_s[slot] for slot in kept),
                values=tuple(self._values[slot] for slot in kept),
            )

    def clear(self) -> None:
        """Forget every point."""
        with self._lock:
            self._num_written = 0
