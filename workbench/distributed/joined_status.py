"""How the replicas of a model compute, in words for all of them, while each prepares a faster way by itself."""

from __future__ import annotations

import threading

from workbench.engine.runner_status import RunnerStatus

__all__ = ["JoinedStatus"]


class JoinedStatus:
    """`status` is provisional as long as a replica's is, and then says how far that one has come. `copies` names the
    replicas, such as "2 replicas (round_robin)"."""

    def __init__(self, copies: str) -> None:
        self.status = RunnerStatus("loading")
        self._copies = copies
        self._parts: dict[int, RunnerStatus] = {}
        # Each replica tells in a thread of its own, and the last to be told must be the newest.
        self._lock = threading.Lock()

    def follow(self, replica_id: int, status: RunnerStatus) -> None:
        """Count this replica's words, in place of those that it had before it was started anew."""
        with self._lock:
            self._parts[replica_id] = status
        status.on_change = lambda words: self._join()
        self._join()

    def _join(self) -> None:
        with self._lock:
            parts = [self._parts[replica_id] for replica_id in sorted(self._parts)]
            provisional = next((part.words for part in parts if part.is_provisional), None)
            if provisional is not None:
                # First what tells that it is provisional.
                self.status.words = f"{provisional}, in one of {self._copies}"
            elif alive := [part for part in parts if not part.has_ended]:
                self.status.words = f"{self._copies} of {alive[0]}"
            else:
                self.status.end()
