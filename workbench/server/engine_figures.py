"""The engine's own figures for Prometheus, read when it asks, so that nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from workbench.engine import EngineStats
from workbench.server.replica_figures import replica_families
from workbench.telemetry.histogram import SIZES, HistogramView

if TYPE_CHECKING:
    from workbench.distributed.parallel_engine import ReplicaFigures

__all__ = ["EngineFigures", "EngineSource"]

_MODEL = ("model_name",)


class EngineSource(Protocol):
    """Where the engine's figures come from."""

    def stats(self) -> EngineStats | None: ...

    def replicas(self) -> Sequence[ReplicaFigures]: ...

    @property
    def model_id(self) -> str: ...


class EngineFigures:
    """A collector for a registry. `num_queued()` counts the requests that wait outside the engine.

    While no model is loaded all figures are there and zero, with an empty model name.
    """

    def __init__(self, engine: EngineSource, num_queued: Callable[[], int]) -> None:
        self._engine = engine
        self._num_queued = num_queued

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise ask the engine while it is being built."""
        return []

    def collect(self) -> Iterator[Metric]:
        found, num_queued = self._engine.stats(), self._num_queued()
        stats = found or EngineStats()
        label = self._engine.model_id if found else ""
        yield _waiting_by_reason(label, stats, num_queued)
        yield _sleep_state(label, is_awake=found is not None)
        yield _tokens_of_steps(label, stats.step_tokens)
        for name, text, value in _gauges(stats, num_queued):
            family = GaugeMetricFamily(f"workbench_{name}", text, labels=_MODEL)
            family.add_metric([label], value)
            yield family
        for name, text, value in _counters(stats):
            counter = CounterMetricFamily(f"workbench_{name}", text, labels=_MODEL)
            counter.add_metric([label], value)
            yield counter
        yield from replica_families(label, self._engine.replicas())


def _waiting_by_reason(label: str, stats: EngineStats, num_queued: int) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "workbench_num_requests_waiting_by_reason",
        "The same by what they wait for: room in front of the engine, or a place in its batch.",
        labels=(*_MODEL, "reason"),
    )
    family.add_metric([label, "room"], num_queued)
    family.add_metric([label, "batch"], stats.num_waiting)
    return family


def _sleep_state(label: str, *, is_awake: bool) -> GaugeMetricFamily:
    """In vLLM's words: an unloaded model is one whose weights were let go; that they only leave the device never is."""
    family = GaugeMetricFamily(
        "workbench_engine_sleep_state",
        "1 for the state the engine is in: awake, or discard_all while no model is loaded.",
        labels=(*_MODEL, "sleep_state"),
    )
    for state, is_so in (("awake", is_awake), ("weights_offloaded", False), ("discard_all", not is_awake)):
        family.add_metric([label, state], float(is_so))
    return family


def _tokens_of_steps(label: str, counted: HistogramView | None) -> HistogramMetricFamily:
    view = counted or HistogramView(SIZES, (0,) * (len(SIZES) + 1), 0.0)
    bounds = [*(str(bound) for bound in view.bounds), "+Inf"]
    family = HistogramMetricFamily(
        "workbench_iteration_tokens_total", "Tokens of prompts and answers that one step computed.", labels=_MODEL
    )
    family.add_metric([label], list(zip(bounds, accumulate(view.counts), strict=True)), view.total)
    return family


def _gauges(stats: EngineStats, num_queued: int) -> list[tuple[str, str, float]]:
    used = stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0
    return [
        ("num_requests_running", "Answers in the engine's batch.", stats.num_running),
        ("num_requests_waiting", "Answers and requests that wait for the engine.", stats.num_waiting + num_queued),
        ("kv_cache_usage_perc", "Share of the KV pool in use, from 0 to 1.", used),
    ]


def _counters(stats: EngineStats) -> list[tuple[str, str, float]]:
    return [
        ("prompt_tokens", "Prompt tokens computed.", stats.prompt_tokens_total),
        ("prompt_tokens_cached", "Prompt tokens found in the prefix cache.", stats.prefix_hit_tokens_total),
        ("generation_tokens", "Tokens generated.", stats.generated_tokens_total),
        ("spec_decode_num_draft_tokens", "Tokens guessed ahead.", stats.draft_tokens_total),
        ("spec_decode_num_accepted_tokens", "Guesses that were right.", stats.accepted_draft_tokens_total),
        ("num_preemptions", "Answers that gave their blocks back.", stats.preemptions_total),
        (
            "prefix_cache_queries",
            "Prompt tokens looked up in the prefix cache.",
            stats.prompt_tokens_total + stats.prefix_hit_tokens_total,
        ),
        ("prefix_cache_hits", "Prompt tokens found in the prefix cache.", stats.prefix_hit_tokens_total),
    ]
