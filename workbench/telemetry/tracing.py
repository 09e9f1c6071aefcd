"""Answers as OpenTelemetry spans, for whoever collects those. Off until asked for; the packages are optional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.errors import ConfigError
from workbench.telemetry.request_log import RequestLog, RequestRow

__all__ = ["trace_requests"]

_NANO = 1e9


def trace_requests(log: RequestLog, *, model: str = "", tracer: Any = None) -> Callable[[], None]:
    """Make a span of every answer that ends from now on; the returned function ends that.

    Spans are named as OpenTelemetry's conventions for generative AI say, with token counts, finish reason and the time
    to the first token as an event. `tracer` is an OpenTelemetry tracer; by default the global provider's. Raises
    ConfigError where OpenTelemetry is not installed.
    """
    if tracer is None:
        try:
            from opentelemetry import trace
        except ImportError:
            raise ConfigError("spans need OpenTelemetry: pip install opentelemetry-sdk") from None
        tracer = trace.get_tracer("workbench")
    return log.observe(lambda row: _span(tracer, model, row))


def _span(tracer: Any, model: str, row: RequestRow) -> None:
    ends_at = row.submitted_at + row.total_s
    span = tracer.start_span(f"text_completion {model}".strip(), start_time=round(row.submitted_at * _NANO))
    for name, value in _attributes(model, row).items():
        if value is not None:
            span.set_attribute(name, value)
    for name, after_s in (("started", row.queue_s), ("first_token", row.ttft_s)):
        if after_s is not None:
            span.add_event(name, timestamp=round((row.submitted_at + after_s) * _NANO))
    if row.error is not None:
        span.set_attribute("error.type", row.error)
    span.end(end_time=round(ends_at * _NANO))


def _attributes(model: str, row: RequestRow) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "workbench",
        "gen_ai.request.model": model or None,
        "gen_ai.response.id": f"{row.request_id}-{row.index}",
        "gen_ai.response.finish_reasons": [row.finish_reason],
        "gen_ai.usage.input_tokens": row.num_prompt_tokens,
        "gen_ai.usage.output_tokens": row.num_generated_tokens,
        "gen_ai.server.time_to_first_token": row.ttft_s,
        "workbench.cached_tokens": row.num_cached_tokens,
    }
