"""Two Ray nodes on this machine, as two machines would be: what each node starts dies with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_MOST_STARTS = 3
_NODE = {
    "num_cpus": 1,
    "object_store_memory": 80 * 1024**2,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}
# Told these, a node does not wait for its helpers to report them. For one more port it does, and dies after 15 seconds.
_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else Ray turns its tokens on in the middle, where the user's account has one: nodes that were started before send
    # none, and their answers are thrown away.
    "RAY_AUTH_MODE": "disabled",
    # On a busy machine all takes longer.
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "180",
    # A dead node is noticed in seconds, a slow one not taken for dead.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "60000",
    # Workers that nobody uses.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}


@contextmanager
def two_node_cluster() -> Iterator[tuple[Any, list[Any]]]:
    """The cluster and its nodes, of which each has room for one replica."""
    # They stay: Ray reads them at the process's end as well.
    os.environ.update(_SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        import ray
        import ray._private.utils
        from ray.cluster_utils import Cluster

        # Without what serves its dashboard Ray starts in a few seconds.
        missing = ImportError("left out in tests")
        patch.setattr(ray._private.utils, "get_dashboard_dependency_error", lambda: missing)
        cluster = Cluster(shutdown_at_exit=True)
        try:
            yield cluster, [add_node(cluster) for _ in range(2)]
        finally:
            ray.shutdown()
            cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """One more machine. A busy one may exceed the seconds that Ray gives it to start; with warm files it does not."""
    for attempt in range(1, _MOST_STARTS + 1):
        try:
            return cluster.add_node(**{name: _free_port() for name in _PORTS}, **_NODE)
        except Exception:  # what a start that timed out raises is no more than that
            if attempt == _MOST_STARTS:
                raise
    raise AssertionError("unreachable")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
