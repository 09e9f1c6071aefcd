"""Processes of a group die with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from workbench.child_lifetime import python_environment
from workbench.distributed.rank_process import ForkedRank

_SCRIPT = """
from workbench.distributed.nursery import RankNursery
from workbench.distributed.rank_group import RankGroup
groups = [RankGroup.start(["alone"]), RankGroup.start(["one", "two"], RankNursery())]
print(*[process_id for group in groups for process_id in group.process_ids], flush=True)
input()
"""


def test_ranks_leave_when_their_starter_is_killed() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=python_environment(),
    )
    process_ids = [int(word) for word in starter.stdout.readline().split()]
    assert len(process_ids) == 3
    watches = [os.pidfd_open(process_id) for process_id in process_ids]
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    for watch in watches:
        _await_end(watch, 60)
        os.close(watch)


def test_a_rank_that_has_gone_unannounced_can_be_killed() -> None:
    """A nursery takes an ended process away a moment before it says so: killing the others of its group meets that."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    end, nobody_wrote = os.pipe()
    rank = ForkedRank(gone.pid, end)
    assert not rank.has_ended()
    rank.terminate()
    rank.kill()
    rank.close()
    os.close(nobody_wrote)


def _await_end(pidfd: int, limit_s: float) -> None:
    import select

    started_s = time.monotonic()
    ready, _, _ = select.select([pidfd], [], [], limit_s)
    assert ready, f"still there after {time.monotonic() - started_s:.0f} s"
