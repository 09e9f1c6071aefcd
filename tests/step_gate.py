"""An engine that does one step for every permit, for what must hold within so many steps, however slow a machine is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class StepGate:
    """Lets the engine do one step for every permit, and counts what has begun."""

    def __init__(self, llm, monkeypatch) -> None:
        self.engine = llm._client._core._engine
        self.num_done = 0
        # As it was: while the engine stands still it cannot be asked.
        self.num_whole_answers = llm.stats().finished_by_reason.get("length", 0)
        self._permits = threading.Semaphore(0)
        self._is_open = False
        step = self.engine.step

        def gated_step():
            while not self._is_open and not self._permits.acquire(timeout=0.05):
                pass
            chunks = step()
            self.num_done += 1
            return chunks

        monkeypatch.setattr(self.engine, "step", gated_step)

    def allow(self, count: int) -> None:
        """Let `count` more steps happen, and wait until they have, or there is nothing left to do."""
        target = self.num_done + count
        for _ in range(count):
            self._permits.release()
        wait_for(lambda: self.num_done >= target or not self.engine.has_work)

    def open(self) -> None:
        """Let all further steps happen."""
        self._is_open = True


def wait_for(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.005)
