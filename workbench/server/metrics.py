"""Figures for Prometheus, under the names that vLLM's dashboards use, with our own prefix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from workbench.engine import Chunk, FinishReason, SamplingParams
from workbench.server.engine_figures import EngineFigures, EngineSource

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_COUNTS = (1, 2, 5, 10, 20, 50, 100)


# Why requests are turned away.
_REASONS = ("queue_full", "queue_timeout", "rate_limit", "draining")


class Metrics:
    """All figures of one endpoint, in a registry of its own.

    `num_queued()` counts the requests that wait outside the engine. `text()` waits for the engine: call it in a thread.
    """

    def __init__(self, engine: EngineSource, num_queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EngineFigures(engine, num_queued))
        self._engine = engine
        # Those with a model's name, and their further labels.
        self._by_model: list[tuple[Counter | Histogram, tuple[str, ...]]] = []
        self._answer_s = 0.0
        self._num_answers = 0
        model = ("model_name",)
        self._requests = self._counter("http_requests", "Answers by route and status.", ("method", "handler", "status"))
        self._refusals = self._counter("admission_rejections", "Requests turned away.", ("reason",))
        self._success = self._counter("request_success", "Answers that ended.", (*model, "finished_reason"))
        self._ttft = self._seconds("time_to_first_token_seconds", "From the request to its first token.")
        self._e2e = self._seconds("e2e_request_latency_seconds", "From the request to its last token.")
        self._per_token = self._seconds("request_time_per_output_token_seconds", "Mean time of an answer's tokens.")
        self._between = self._seconds("inter_token_latency_seconds", "From one piece of an answer to the next.")
        self._queued = self._seconds("request_queue_time_seconds", "From the request until the engine has it.")
        self._inference = self._seconds("request_inference_time_seconds", "In the engine, until the last token.")
        self._prefill = self._seconds("request_prefill_time_seconds", "In the engine, until the first token.")
        self._decode = self._seconds("request_decode_time_seconds", "From the first token to the last.")
        self._prompt = self._sizes("request_prompt_tokens", "Tokens of a prompt.", _TOKENS)
        self._answer = self._sizes("request_generation_tokens", "Tokens of an answer.", _TOKENS)
        self._max_tokens = self._sizes("request_params_max_tokens", "Most tokens asked for.", _TOKENS)
        self._n = self._sizes("request_params_n", "Answers asked for.", _COUNTS)
        self._sockets = Gauge("workbench_open_websockets", "WebSockets that are open.", registry=self.registry)
        self._by_model += [(self._success, (reason.value,)) for reason in FinishReason]
        for reason in _REASONS:
            self._refusals.labels(reason)

    def http_answered(self, method: str, handler: str, status: int) -> None:
        """An HTTP request has been answered; `handler` is the route's pattern, never the path that was sent."""
        self._requests.labels(method, handler, str(status)).inc()

    def refused(self, reason: str) -> None:
        """A request was turned away, for one of the reasons above."""
        self._refusals.labels(reason).inc()

    def socket_opened(self) -> None:
        self._sockets.inc()

    def socket_closed(self) -> None:
        self._sockets.dec()

    def piece_came(self, model_id: str, since_last_s: float) -> None:
        """A further piece of an answer has come, so long after the one before."""
        self._between.labels(model_id).observe(since_last_s)

    def answer_ended(self, model_id: str, params: SamplingParams, chunk: Chunk, started_s: float) -> None:
        """One answer has ended with this chunk; its request began at `started_s` on the monotonic clock."""
        usage = chunk.usage
        self._success.labels(model_id, str(chunk.finish_reason)).inc()
        if usage is None:
            return
        if chunk.index == 0:
            self._prompt.labels(model_id).observe(usage.num_prompt_tokens)
            self._n.labels(model_id).observe(params.n)
            if params.max_tokens is not None:
                self._max_tokens.labels(model_id).observe(params.max_tokens)
        self._answer.labels(model_id).observe(usage.num_generated_tokens)
        self._e2e.labels(model_id).observe(usage.finished_s - started_s)
        self._queued.labels(model_id).observe(usage.submitted_s - started_s)
        self._inference.labels(model_id).observe(usage.finished_s - usage.submitted_s)
        self._answer_s += usage.finished_s - started_s
        self._num_answers += 1
        if usage.first_token_s is None:
            return
        decode_s = usage.finished_s - usage.first_token_s
        self._ttft.labels(model_id).observe(usage.first_token_s - started_s)
        self._prefill.labels(model_id).observe(usage.first_token_s - usage.submitted_s)
        self._decode.labels(model_id).observe(decode_s)
        if usage.num_generated_tokens > 1:
            self._per_token.labels(model_id).observe(decode_s / (usage.num_generated_tokens - 1))

    @property
    def mean_answer_s(self) -> float | None:
        """Seconds from request to last token, over all answers so far; None before the first one."""
        return self._answer_s / self._num_answers if self._num_answers else None

    def text(self) -> bytes:
        """Everything, in Prometheus' text format; what has not happened yet with zeros."""
        model_id = self._engine.model_id
        for metric, labels in self._by_model:
            metric.labels(model_id, *labels)
            # Stood there while no model was loaded.
            if model_id:
                with contextlib.suppress(KeyError):
                    metric.remove("", *labels)
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"workbench_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return self._sizes(name, text, _SECONDS)

    def _sizes(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(f"workbench_{name}", text, ("model_name",), buckets=buckets, registry=self.registry)
        self._by_model.append((made, ()))
        return made
