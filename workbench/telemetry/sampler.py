"""One thread that reads probes at a steady beat into series. Knows nothing of what the numbers mean."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType

from workbench.errors import ConfigError
from workbench.telemetry.probe import Probe
from workbench.telemetry.series import Series
from workbench.telemetry.sinks import tell_sinks

__all__ = ["Sampler"]

_log = logging.getLogger(__name__)

# How long `stop` waits for a probe that is being read; the thread is a daemon, so a stuck one can't keep the process.
_JOIN_LIMIT_S = 5.0


class Sampler:
    """Reads every probe each `interval_s` seconds and keeps the newest `capacity` points of each number.

    The beat does not drift: beats are counted from the start, and one that was missed is skipped, never caught up on.
    A probe that fails leaves a gap and its message in `errors`; the others go on, and it is asked again.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        interval_s: float = 1.0,
        *,
        capacity: int = 600,
        clock: Callable[[], float] = time.monotonic,
        name: str = "workbench-sampler",
    ) -> None:
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise ConfigError(f"interval_s is {interval_s}: a positive number of seconds is needed")
        self._probes = tuple(probes)
        self._interval_s = interval_s
        self._capacity = capacity
        self._clock = clock
        self._name = name
        self._series: dict[str, Series] = {}
        self._errors: dict[int, str] = {}
        self._observers: list[Callable[[float], None]] = []
        self._lock = threading.Lock()
        self._beat_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def interval_s(self) -> float:
        """Seconds between beats."""
        return self._interval_s

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return self._thread is not None

    @property
    def series(self) -> MappingProxyType[str, Series]:
        """Every series seen so far, by name (a copy of the table; the series are shared)."""
        with self._lock:
            return MappingProxyType(dict(self._series))

    @property
    def errors(self) -> tuple[str, ...]:
        """Messages of the probes that failed at their last reading."""
        with self._lock:
            return tuple(self._errors.values())

    def now_s(self) -> float:
        """The time, on the clock that stamps the points."""
        return self._clock()

    def observe(self, callback: Callable[[float], None]) -> Callable[[], None]:
        """Call `callback(time_s)` after each beat, on the sampler's thread; the returned function ends that."""
        with self._lock:
            self._observers.append(callback)

        def forget() -> None:
            with self._lock:
                if callback in self._observers:
                    self._observers.remove(callback)

        return forget

    def start(self) -> None:
        """Start the thread; the first beat is at once. Does nothing when it runs."""
        with self._lock:
            if self._thread is not None:
                return
            self._stopping = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stopping,), name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. Points are kept. Does nothing when it does not run."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_LIMIT_S)

    def close(self) -> None:
        """Stop, and let go of what was measured from. Points are kept."""
        self.stop()
        self._probes = ()

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def beat(self) -> None:
        """Read every probe once, now, on the calling thread."""
        with self._beat_lock:
            time_s = self._clock()
            for index, probe in enumerate(self._probes):
                self._read(index, probe, time_s)
        tell_sinks(time_s, self.series)
        with self._lock:
            observers = tuple(self._observers)
        for observer in observers:
            try:
                observer(time_s)
            except Exception:
                _log.exception("an observer of %s failed", self._name)

    def _read(self, index: int, probe: Probe, time_s: float) -> None:
        try:
            numbers = dict(probe.read())
        except Exception as error:
            with self._lock:
                is_news = index not in self._errors
                self._errors[index] = f"{type(probe).__name__}: {error}"
            if is_news:
                _log.warning("probe %s can't be read", type(probe).__name__, exc_info=True)
            return
        with self._lock:
            self._errors.pop(index, None)
            for name, value in numbers.items():
                if name not in self._series:
                    self._series[name] = Series(self._capacity)
                self._series[name].append(time_s, float(value))

    def _run(self, stopping: threading.Event) -> None:
        started_s = self._clock()
        while not stopping.is_set():
            self.beat()
            stopping.wait(_until_next_beat_s(started_s, self._clock(), self._interval_s))


def _until_next_beat_s(started_s: float, now_s: float, interval_s: float) -> float:
    """Seconds to the first beat after `now_s`; beats lie at started_s + k * interval_s."""
    elapsed_s = max(0.0, now_s - started_s)
    next_beat = math.floor(elapsed_s / interval_s) + 1
    return next_beat * interval_s - elapsed_s
