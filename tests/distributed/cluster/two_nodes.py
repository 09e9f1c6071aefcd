"""Two Ray nodes on this machine, as two machines would be: what each node starts dies with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MOST_STARTS = 3
NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}


@contextmanager
def two_node_cluster() -> Iterator[tuple[Any, list[Any]]]:
    """The cluster and its nodes, of which each has room for one replica."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Else Ray turns its tokens on in the middle, where the user's account has one: nodes that were started before send
    # none, and their answers are thrown away.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray
    import ray._private.utils
    from ray.cluster_utils import Cluster

    # Without what serves its dashboard Ray starts in a few seconds; a node dies whose helpers take more than 15.
    kept = ray._private.utils.get_dashboard_dependency_error
    ray._private.utils.get_dashboard_dependency_error = lambda: ImportError("left out in tests")
    cluster, nodes = _start(Cluster)
    try:
        yield cluster, nodes
    finally:
        ray._private.utils.get_dashboard_dependency_error = kept
        ray.shutdown()
        cluster.shutdown()


def _start(make_cluster: Any) -> tuple[Any, list[Any]]:
    """On a busy machine a node may exceed the seconds that Ray gives it to start; with warm files it does not."""
    for attempt in range(1, _MOST_STARTS + 1):
        cluster = make_cluster(shutdown_at_exit=True)
        try:
            return cluster, [add_node(cluster) for _ in range(2)]
        except Exception:  # what a start that timed out raises is no more than that
            cluster.shutdown()
            if attempt == _MOST_STARTS:
                raise
    raise AssertionError("unreachable")


def add_node(cluster: Any) -> Any:
    """One more machine."""
    return cluster.add_node(metrics_agent_port=_free_port(), **NODE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
