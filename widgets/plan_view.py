"""A plan as plain values for a page, and measured figures beside predicted ones. Pure; knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.number_text import three_digits

if TYPE_CHECKING:
    from workbench.planner import Plan

__all__ = ["Measured", "comparison_rows", "plan_arguments", "plan_as_view"]

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
    """What was seen once a model was loaded: bytes, tokens per second, seconds; None for what was not seen yet."""

    weight_bytes: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    process_bytes: int | None = None
    tokens_per_s: float | None = None
    ttft_s: float | None = None


def plan_as_view(plan: Plan) -> dict[str, Any]:
    """What the page shows of a plan, as JSON values."""
    from workbench.planner.report import no_advice

    return {
        "verdict": plan.verdict.value,
        "title": f"{plan.quant} weights, context {plan.context:,} of {plan.max_context:,} tokens",
        "margin_bytes": plan.margin_bytes,
        "devices": [_device(device) for device in plan.devices],
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
    }


def comparison_rows(plan: Plan, measured: Measured) -> list[list[str]]:
    """Rows of (what, predicted, measured, difference) for what was measured."""
    parts = plan.devices[0].parts
    pairs = [
        ("Weights", parts.weights, measured.weight_bytes, _bytes_text),
        # Of as many tokens as the engine keeps room for, which are more than one request's.
        ("KV cache", plan.kv_bytes_per_token * (measured.kv_tokens or 0), measured.kv_bytes, _bytes_text),
        ("All together", plan.devices[0].needed_bytes, measured.process_bytes, _bytes_text),
        ("Tokens/s, one request", plan.speed.tokens_per_s, measured.tokens_per_s, three_digits),
        ("First token, s", plan.speed.ttft_s, measured.ttft_s, three_digits),
    ]
    return [
        [name, words(predicted), words(seen), f"{seen / predicted - 1:+.0%}" if predicted else "\u2013"]
        for name, predicted, seen, words in pairs
        if seen is not None
    ]


def _device(device: Any) -> dict[str, Any]:
    parts = [{"name": name, "bytes": getattr(device.parts, field)} for field, name in _PARTS.items()]
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
