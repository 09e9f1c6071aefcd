"""How many replicas of a deployment run, as Ray says it; asked at most once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from workbench.distributed.cluster.config import ClusterConfig

__all__ = ["DeploymentStatus"]

_LONGEST_AGE_S = 1.0


class DeploymentStatus:
    """Of one Serve application. Every method may be called from any thread."""

    def __init__(
        self, application: str, deployment: str, config: ClusterConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._deployment = deployment
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._counts: dict[str, int] = {}

    def replica_counts(self) -> dict[str, int]:
        """Replicas by their state, such as RUNNING, STARTING or STOPPING; empty when it is gone."""
        with self._lock:
            if self._clock() - self._read_s > _LONGEST_AGE_S:
                self._counts, self._read_s = self._read(), self._clock()
            return dict(self._counts)

    @property
    def num_running(self) -> int:
        """Replicas that serve."""
        return self.replica_counts().get("RUNNING", 0)

    @property
    def degraded_reason(self) -> str | None:
        """In words what is missing of the replicas that there should be at least; None while all are there."""
        running = self.num_running
        if running >= self._config.fewest:
            return None
        return f"{running} of {self._config.fewest} replicas run; Ray starts the others anew where there is room"

    def read_now(self) -> dict[str, int]:
        """As `replica_counts`, whatever was known."""
        with self._lock:
            self._counts, self._read_s = self._read(), self._clock()
            return dict(self._counts)

    def failure(self) -> str | None:
        """Why the application could not be deployed, as its replicas said it last; None while it may yet be."""
        application = self._find()
        if application is None or _name(application.status) != "DEPLOY_FAILED":
            return None
        words = [d.message for d in application.deployments.values() if d.message] or [application.message]
        lines = [line for line in words[0].splitlines() if line.strip()]
        return lines[-1].strip() if lines else "Ray gives no reason"

    def _read(self) -> dict[str, int]:
        application = self._find()
        if application is None or self._deployment not in application.deployments:
            return {}
        states = application.deployments[self._deployment].replica_states
        return {_name(state): count for state, count in states.items()}

    def _find(self) -> Any:
        from ray import serve

        return serve.status().applications.get(self._application)


def _name(state: Any) -> str:
    return str(getattr(state, "value", state))
