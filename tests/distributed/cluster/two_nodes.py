"""Two Ray nodes on this machine, as two machines would be."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager

_MIB = 1024**2
_NODE = {"num_cpus": 1, "object_store_memory": 80 * _MIB, "include_dashboard": False}


@contextmanager
def two_node_cluster():
    """Yields the cluster and its two nodes; replicas need the processor that each node has."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import ray._private.utils
    from ray.cluster_utils import Cluster

    # Without what serves its dashboard Ray starts in a few seconds: a node dies whose helpers take more than 15.
    ray._private.utils.get_dashboard_dependency_error = lambda: ImportError("left out in tests")

    cluster = Cluster(shutdown_at_exit=True)
    try:
        nodes = [cluster.add_node(metrics_agent_port=_free_port(), **_NODE) for _ in range(2)]
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
