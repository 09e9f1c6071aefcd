"""The pump's thread starts, runs what it is given, and ends."""

from __future__ import annotations

import asyncio
import threading

from workbench.parallel.pump import Pump


def test_it_runs_and_stops() -> None:
    seen = []

    async def wait_for_ever(is_waiting: threading.Event) -> None:
        is_waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    is_waiting = threading.Event()
    with Pump("test-pump") as pump:
        assert pump.spawn(wait_for_ever(is_waiting))
        assert is_waiting.wait(10)
        # Not begun when the pump stops: its `finally` runs all the same.
        pump.spawn(wait_for_ever(threading.Event()))
    assert seen == ["cancelled", "cancelled"]
    assert not [thread for thread in threading.enumerate() if thread.name == "test-pump"]
    assert not pump.spawn(wait_for_ever(threading.Event()))
    pump.stop()


def test_it_can_be_stopped_from_within() -> None:
    pump, done = Pump("test-pump"), threading.Event()

    async def stop() -> None:
        pump.stop()
        done.set()

    pump.spawn(stop())
    assert done.wait(10)
