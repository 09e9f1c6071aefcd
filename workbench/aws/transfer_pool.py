"""Jobs on threads with one meter: workers count bytes, and only the caller's thread reports them and may cancel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from workbench.progress import Progress, ProgressCallback

__all__ = ["Job", "Meter", "count_progress", "run_jobs"]

# How long a cancelled user waits at most for the next chance to cancel.
_REPORT_INTERVAL_S = 0.2


class Meter:
    """What a job holds: `add` counts bytes, and `should_stop` says that nobody waits for the job any more."""

    def __init__(self) -> None:
        self._counts: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stop = threading.Event()

    def add(self, count: int) -> None:
        """Count bytes; called by workers."""
        self._counts.put(count)

    def should_stop(self) -> bool:
        """Whether to give up between two pieces of work."""
        return self._stop.is_set()

    def pause(self, duration_s: float) -> None:
        """Wait before trying again, or until everything stops."""
        self._stop.wait(duration_s)

    def stop(self) -> None:
        """Make all jobs give up at their next look."""
        self._stop.set()

    def take(self) -> int:
        """All bytes counted since the last call."""
        total = 0
        while True:
            try:
                total += self._counts.get_nowait()
            except queue.Empty:
                return total


Job = Callable[[Meter], None]


def run_jobs(
    jobs: Sequence[Job], num_workers: int, report: Callable[[int], None], *, wait_at_stop: bool = False
) -> None:
    """Run all jobs, calling `report` with newly counted bytes several times a second from this thread.

    The first exception of a job, or one raised by `report`, stops the others and is raised: at once, or with
    `wait_at_stop` when the last of them has ended.
    """
    meter = Meter()
    pool = ThreadPoolExecutor(max_workers=num_workers, thread_name_prefix="workbench-s3")
    try:
        pending: set[Future[None]] = {pool.submit(job, meter) for job in jobs}
        report(0)
        while pending:
            done, pending = wait(pending, timeout=_REPORT_INTERVAL_S, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            report(meter.take())
    finally:
        meter.stop()
        # A worker that waits for the network ends with its time limit.
        pool.shutdown(wait=wait_at_stop, cancel_futures=True)


def count_progress(progress: ProgressCallback, stage: str, completed: int, total: int) -> Callable[[int], None]:
    """A `report` for `run_jobs` that adds up and tells `progress`."""

    def report(count: int) -> None:
        nonlocal completed
        completed += count
        progress(Progress(stage, completed, total))

    return report
