"""Figures of each replica of a model that is spread over devices, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from workbench.distributed.parallel_engine import ReplicaFigures

__all__ = ["replica_families"]

_LABELS = ("model_name", "replica")


def replica_families(model_id: str, replicas: Sequence[ReplicaFigures]) -> Iterator[Metric]:
    """One sample a replica; without replicas the families are there and empty."""
    gauges = (
        ("replica_up", "1 while the processes of a replica run.", [float(one.is_alive) for one in replicas]),
        ("replica_requests_running", "Requests a replica has.", [float(one.num_in_flight) for one in replicas]),
        (
            "pipeline_bubble_ratio",
            "Share of the time of a replica's stages, 0 to 1, in which they had nothing to do while requests ran.",
            [one.pipeline.bubble_share for one in replicas],
        ),
    )
    for name, text, values in gauges:
        gauge = GaugeMetricFamily(f"workbench_{name}", text, labels=_LABELS)
        for one, value in zip(replicas, values, strict=True):
            gauge.add_metric([model_id, str(one.replica_id)], value)
        yield gauge
    counter = CounterMetricFamily("workbench_replica_requests", "Requests a replica was given.", labels=_LABELS)
    for one in replicas:
        counter.add_metric([model_id, str(one.replica_id)], one.requests_total)
    yield counter
