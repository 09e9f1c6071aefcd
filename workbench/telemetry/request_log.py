"""Every answer as a row: how long it waited, how fast it came, how it ended. Bounded; knows no engine."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from workbench.telemetry.histogram import SIZES, Histogram, HistogramView

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RequestLog", "RequestRow"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestRow:
    """One answer. `submitted_at` is Unix time; durations are in seconds, None where there was no such moment.

    `mean_in_flight` is how many answers were in flight on average while this one was: 1.0 means that it ran alone.
    """

    request_id: str
    index: int
    submitted_at: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    queue_s: float | None
    ttft_s: float | None
    total_s: float
    decode_tokens_per_s: float | None
    mean_in_flight: float
    finish_reason: str
    error: str | None = None

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time between two tokens of the answer."""
        return 1 / self.decode_tokens_per_s if self.decode_tokens_per_s else None


class RequestLog:
    """The newest `capacity` answers, and histograms over all of them since the start.

    Begun and ended from the engine's side; rows, frames and observers may be used from any thread. Observers are called
    on the thread that ends an answer and must return quickly.
    """

    def __init__(
        self,
        capacity: int = 10_000,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows: deque[RequestRow] = deque(maxlen=capacity)
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._histograms = {
            "ttft_s": Histogram(),
            "queue_s": Histogram(),
            "total_s": Histogram(),
            "seconds_per_token": Histogram(),
            "num_prompt_tokens": Histogram(SIZES),
            "num_generated_tokens": Histogram(SIZES),
        }
        self._observers: tuple[Callable[[RequestRow], None], ...] = ()
        self._begun: dict[str, tuple[float, float]] = {}
        # Answers in flight, and their number added up over time, in answer-seconds.
        self._num_in_flight = 0
        self._area = 0.0
        self._area_s = clock()

    @property
    def rows(self) -> tuple[RequestRow, ...]:
        """The newest answers, oldest first."""
        with self._lock:
            return tuple(self._rows)

    @property
    def num_in_flight(self) -> int:
        """Answers that have begun and not ended."""
        return self._num_in_flight

    @property
    def histograms(self) -> MappingProxyType[str, HistogramView]:
        """By the row's field: `ttft_s`, `queue_s`, `total_s`, `seconds_per_token` and the two token counts."""
        with self._lock:
            return MappingProxyType({name: histogram.view() for name, histogram in self._histograms.items()})

    def observe(self, callback: Callable[[RequestRow], None]) -> Callable[[], None]:
        """Call `callback(row)` after each answer; the returned function ends that."""
        with self._lock:
            self._observers = (*self._observers, callback)

        def forget() -> None:
            with self._lock:
                self._observers = tuple(other for other in self._observers if other is not callback)

        return forget

    def begin(self, request_id: str, num_answers: int = 1) -> None:
        """A request of `num_answers` answers was submitted."""
        with self._lock:
            self._advance(num_answers)
            self._begun[request_id] = (self._clock(), self._area)

    def end(
        self,
        request_id: str,
        index: int,
        *,
        finish_reason: str,
        is_last: bool = True,
        num_prompt_tokens: int = 0,
        num_cached_tokens: int = 0,
        num_generated_tokens: int = 0,
        started_s: float | None = None,
        first_token_s: float | None = None,
        error: str | None = None,
    ) -> None:
        """Answer `index` has ended; `is_last` of its request. Times are on the log's clock."""
        with self._lock:
            self._advance(-1)
            begun = self._begun.pop(request_id, None) if is_last else self._begun.get(request_id)
            if begun is None:
                return
            now_s, (begun_s, area) = self._area_s, begun
            total_s = now_s - begun_s
            decode_s = now_s - first_token_s if first_token_s is not None else 0.0
            row = RequestRow(
                request_id=request_id,
                index=index,
                submitted_at=self._wall_clock() - total_s,
                num_prompt_tokens=num_prompt_tokens,
                num_cached_tokens=num_cached_tokens,
                num_generated_tokens=num_generated_tokens,
                queue_s=None if started_s is None else max(0.0, started_s - begun_s),
                ttft_s=None if first_token_s is None else max(0.0, first_token_s - begun_s),
                total_s=total_s,
                decode_tokens_per_s=(num_generated_tokens - 1) / decode_s
                if num_generated_tokens > 1 and decode_s > 0
                else None,
                mean_in_flight=(self._area - area) / total_s if total_s > 0 else 1.0,
                finish_reason=finish_reason,
                error=error,
            )
            self._rows.append(row)
            for name, histogram in self._histograms.items():
                value = getattr(row, name)
                if value is not None:
                    histogram.add(value)
            observers = self._observers
        for observer in observers:
            try:
                observer(row)
            except Exception:
                _log.exception("an observer of the request log failed")

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame, one column a field; `submitted_at` becomes a time."""
        import pandas as pd

        names = [field.name for field in fields(RequestRow)]
        frame = pd.DataFrame([asdict(row) for row in self.rows], columns=names)
        return frame.assign(submitted_at=pd.to_datetime(frame["submitted_at"], unit="s", utc=True))

    def __len__(self) -> int:
        return len(self._rows)

    def _advance(self, change: int) -> None:
        now_s = self._clock()
        self._area += self._num_in_flight * (now_s - self._area_s)
        self._area_s = now_s
        self._num_in_flight = max(0, self._num_in_flight + change)
