"""A plan as plain values for a page, and measured figures beside predicted ones. Pure; knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.number_text import three_digits

if TYPE_CHECKING:
    from workbench.planner import Plan

__all__ = ["Measured", "comparison_rows", "plan_arguments", "plan_as_view", "planned_bytes"]

_PARTS = {
    "weights": "Weights",
    "kv": "KV cache",
    "activations": "Activations",
    "workspace": "Workspace",
    "graphs": "Captured graphs",
    "overhead": "Overhead",
}


@dataclass(frozen=True)
class Measured:
    """What was seen once a model was loaded: bytes, tokens per second, seconds; None for what was not seen yet.

    `kv_bytes` hold the `kv_tokens` that the engine keeps room for. The speeds are those of a reply to `prompt_tokens`,
    `cached_tokens` of which were computed before, of `generated_tokens`.
    """

    weight_bytes: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    tokens_per_s: float | None = None
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    generated_tokens: int = 0


def plan_as_view(plan: Plan, engine_name: str | None = None) -> dict[str, Any]:
    """What the page shows of a plan, as JSON values. Plans are for the workbench's own engine, whatever is chosen."""
    from workbench.planner.report import no_advice

    title = f"{plan.quant} weights, context {plan.context:,} of {plan.max_context:,} tokens"
    if engine_name not in (None, "paged"):
        title += f"; as the workbench's own engine would take it: {engine_name} goes by rules of its own"
    return {
        "verdict": plan.verdict.value,
        "title": title,
        "margin_bytes": plan.margin_bytes,
        "devices": [_device(device, plan.batch) for device in plan.devices],
        "host": {
            "needed_bytes": plan.host_load_bytes,
            "available_bytes": plan.host_available_bytes,
            "verdict": plan.host_verdict.value,
        },
        "speeds": _speeds(plan),
        "origin": f"Rates {plan.speed.rates.origin}"
        + (f"; {plan.speed.calibration}" if plan.speed.calibration else ""),
        "advice": [
            {"text": advice.text, "cost": advice.cost, "verdict": advice.verdict.value} for advice in plan.advice
        ],
        "no_advice": no_advice(plan),
        "notes": list(plan.notes),
    }


def plan_arguments(choice: Any, batch: int, kv_dtype: str | None = None) -> dict[str, Any]:
    """Keywords of `workbench.plan` for a `LoadChoice`."""
    more = {} if choice.parallel is None else {"parallel": choice.parallel}
    return {
        **more,
        "backend": choice.backend,
        "gpus": list(choice.gpus) or None,
        "quant": choice.precision,
        "context": choice.context_length,
        "batch": batch,
        "kv_dtype": kv_dtype,
        "cpu_offload_layers": choice.cpu_offload_layers,
        "draft_model": choice.draft_model,
    }


def planned_bytes(plan: Plan, kv_tokens: int) -> int:
    """Weights on all devices, and a pool for so many tokens: the sum that a loaded engine tells of itself."""
    return _weight_bytes(plan) + plan.kv_bytes_per_token * kv_tokens


def comparison_rows(plan: Plan, measured: Measured) -> list[list[str]]:
    """Rows of (what, predicted, measured, difference), each predicted for what was run: the pool that there is, the
    reply that came. What cannot be predicted so has no row."""
    seen = measured
    rows = [("Weights", _weight_bytes(plan), seen.weight_bytes, _bytes_text)]
    if seen.kv_tokens:
        name = f"KV pool of {seen.kv_tokens:,} tokens"
        rows.append((name, plan.kv_bytes_per_token * seen.kv_tokens, seen.kv_bytes, _bytes_text))
    predictor = plan.predictor
    if predictor is not None and seen.prompt_tokens:
        step_s = predictor.decode_s(1, seen.prompt_tokens + seen.generated_tokens / 2)
        rows.append(("Tokens/s, one request", 1 / step_s, seen.tokens_per_s, three_digits))
        computed = max(1, seen.prompt_tokens - seen.cached_tokens)
        name = f"First token, s, after {computed:,} {'new ' if seen.cached_tokens else ''}prompt tokens"
        rows.append((name, predictor.prefill_s(computed), seen.ttft_s, three_digits))
    return [
        [name, words(predicted), words(value), f"{value / predicted - 1:+.0%}" if predicted else "\u2013"]
        for name, predicted, value, words in rows
        if value is not None
    ]


def _weight_bytes(plan: Plan) -> int:
    return sum(device.parts.weights for device in plan.devices)


def _device(device: Any, batch: int) -> dict[str, Any]:
    # The engine keeps room for more tokens than these where there is room; the figure is what the requests need.
    requests = f"{batch} request{'s' if batch > 1 else ''}"
    names = {**_PARTS, "kv": f"{_PARTS['kv']} of {requests}"}
    parts = [{"name": name, "bytes": getattr(device.parts, field)} for field, name in names.items()]
    return {
        "label": device.label,
        "name": device.name,
        "parts": [part for part in parts if part["bytes"]],
        "needed_bytes": device.needed_bytes,
        "available_bytes": device.available_bytes,
        "total_bytes": device.total_bytes,
        "verdict": device.verdict.value,
    }


def _speeds(plan: Plan) -> list[list[str]]:
    speed = plan.speed
    rows = [[f"{three_digits(speed.tokens_per_s)} tokens/s", f"one request, bound by {speed.bound}"]]
    if plan.batch > 1:
        rows.append(
            [
                f"{three_digits(speed.batch_tokens_per_s)} tokens/s",
                f"{plan.batch} requests together, bound by {speed.batch_bound}",
            ]
        )
    rows.append([f"{three_digits(speed.ttft_s)} s", f"to the first token after {speed.prompt_tokens:,} prompt tokens"])
    return rows


def _bytes_text(num_bytes: float) -> str:
    from workbench.planner.report import byte_text

    return byte_text(num_bytes)
