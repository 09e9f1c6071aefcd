"""How many of something came per second of late, in a window of whole seconds that slides."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["RecentRate"]


class RecentRate:
    """Counts over the last `window_s` seconds; from the first count on, if that is not as long ago."""

    def __init__(self, window_s: int = 5, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        # (second, count), oldest first.
        self._seconds: deque[tuple[int, int]] = deque(maxlen=window_s + 1)
        self._first_s: float | None = None

    def add(self, count: int) -> None:
        """So many came now."""
        now_s = self._clock()
        with self._lock:
            if self._first_s is None:
                self._first_s = now_s
            if self._seconds and self._seconds[-1][0] == int(now_s):
                second, before = self._seconds.pop()
                self._seconds.append((second, before + count))
            else:
                self._seconds.append((int(now_s), count))

    def per_s(self) -> float:
        """The rate now; 0 when nothing came within the window."""
        now_s = self._clock()
        with self._lock:
            if self._first_s is None:
                return 0.0
            since_s = max(self._first_s, now_s - self._window_s)
            total = sum(count for second, count in self._seconds if second + 1 > since_s)
            # Less than a second says little: a first burst is no rate.
            return total / max(1.0, now_s - since_s)
