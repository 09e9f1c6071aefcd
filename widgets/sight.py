"""Whether somebody can see a widget, by what its views in pages last said. Knows no widget."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Sight"]

# Pages say it again every 15 seconds; one that was closed or cut off cannot say that it went.
_FORGOTTEN_AFTER_S = 60.0


class Sight:
    """Views come into sight and leave it; one that has not been heard of for a minute is gone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # View -> when it was last said to be visible. Replaced whole: other threads read it.
        self._seen_at_s: dict[str, float] = {}

    def note(self, view: str, visible: bool) -> bool:
        """A view says whether it can be seen; True when it has just come into sight."""
        others = {name: at_s for name, at_s in self._seen_at_s.items() if name != view}
        is_new = visible and view not in self._seen_at_s
        self._seen_at_s = {**others, view: self._clock()} if visible else others
        return is_new

    @property
    def is_seen(self) -> bool:
        """Whether any view can be seen."""
        now_s = self._clock()
        return any(now_s - at_s < _FORGOTTEN_AFTER_S for at_s in self._seen_at_s.values())
