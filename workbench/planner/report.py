"""A plan in words: one line, a few lines, an HTML table. Free memory moves by the minute, so the line leaves it out."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from workbench.number_text import three_digits

if TYPE_CHECKING:
    from workbench.planner.result import DevicePlan, Plan

__all__ = ["byte_text", "no_advice", "plan_html", "plan_line", "plan_text"]

_PARTS = {
    "weights": "weights",
    "kv": "KV cache",
    "activations": "activations",
    "workspace": "workspace",
    "graphs": "captured graphs",
    "overhead": "fixed overhead",
}
_NO_ADVICE = (
    "Nothing that can be set makes it fit here, neither a shorter context nor smaller weights: choose a smaller model, "
    "or a machine with more memory."
)
_COLOURS = {"fits": "#1a7f37", "tight": "#9a6700", "does not fit": "#cf222e"}


def byte_text(num_bytes: float) -> str:
    """ "1.35 GB", "270 MB": powers of 1000, three figures."""
    sign, size = ("-" if num_bytes < 0 else ""), abs(float(num_bytes))
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{sign}{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{sign}{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def no_advice(plan: Plan) -> str:
    """A sentence for a plan that does not fit and that no advice would make fit; "" for every other."""
    return "" if plan.fits or plan.advice else _NO_ADVICE


def plan_line(plan: Plan) -> str:
    """The same plan on the same machine gives the same line."""
    device = max(plan.devices, key=lambda device: device.needed_bytes)
    where = f"{len(plan.devices)} GPUs" if len(plan.devices) > 1 else device.label
    each = " on each" if len(plan.devices) > 1 else ""
    parts = ", ".join(
        f"{name} {byte_text(getattr(device.parts, field))}"
        for field, name in _PARTS.items()
        if getattr(device.parts, field)
    )
    return (
        f"Plan({plan.model!r} on {where}, {plan.quant}, context {plan.context:,}, batch {plan.batch}: "
        f"{plan.verdict.value}; needs {byte_text(device.needed_bytes)}{each}: {parts})"
    )


def plan_text(plan: Plan) -> str:
    """Some lines for a terminal."""
    lines = [
        f"{plan.model}: {plan.num_parameters / 1e6:,.0f} million weights, from {plan.evidence}",
        f"{plan.quant} weights, computed in {plan.dtype}, KV cache in {plan.kv_dtype}; context {plan.context:,} of "
        f"{plan.max_context:,}, batch {plan.batch}",
        "",
    ]
    for device in plan.devices:
        lines += _device_lines(device)
    lines.append(_host_line(plan))
    lines += ["", *_speed_lines(plan)]
    if plan.advice:
        lines += ["", "what would make it fit:" if not plan.fits else "what would leave more room:"]
        lines += [f"  {advice.text}: {advice.cost}" for advice in plan.advice]
    if sentence := no_advice(plan):
        lines += ["", sentence]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def plan_html(plan: Plan) -> str:
    """A small static table; the verdict is written out, never told by its colour alone."""
    colour = _COLOURS[plan.verdict.value]
    title = (
        f"<strong>{escape(plan.model)}</strong>, {escape(plan.quant)}, context {plan.context:,}, batch {plan.batch}: "
        f'<strong style="color:{colour}">{plan.verdict.value}</strong>, '
        f"{byte_text(abs(plan.margin_bytes))} {'spare' if plan.margin_bytes >= 0 else 'too little'}"
    )
    head = "".join(f'<th scope="col">{escape(device.label)}</th>' for device in plan.devices)
    rows = [
        _row(name, [byte_text(getattr(device.parts, field)) for device in plan.devices])
        for field, name in _PARTS.items()
        if any(getattr(device.parts, field) for device in plan.devices)
    ]
    rows.append(_row("needed", [byte_text(device.needed_bytes) for device in plan.devices]))
    rows.append(_row("available now", [byte_text(device.available_bytes) for device in plan.devices]))
    rows.append(_row("verdict", [device.verdict.value for device in plan.devices]))
    # What the table says nothing of, and may be why it does not fit.
    host = [] if plan.host_verdict.value == "fits" else [_host_line(plan)]
    notes = [*host, *_speed_lines(plan), *plan.notes]
    advice = "".join(f"<li>{escape(a.text)}: {escape(a.cost)}</li>" for a in plan.advice)
    return (
        f'<div class="workbench-plan"><p>{title}</p><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table><p>{'<br>'.join(map(escape, notes))}</p>"
        + (f"<p>What would help:</p><ul>{advice}</ul>" if advice else "")
        + (f"<p>{escape(sentence)}</p>" if (sentence := no_advice(plan)) else "")
        + "</div>"
    )


def _device_lines(device: DevicePlan) -> list[str]:
    lines = [f"{device.label} ({device.name})"]
    for field, name in _PARTS.items():
        if getattr(device.parts, field):
            lines.append(f"  {name:<16}{byte_text(getattr(device.parts, field)):>10}")
    lines.append(f"  {'needed':<16}{byte_text(device.needed_bytes):>10}")
    lines.append(f"  {'available now':<16}{byte_text(device.available_bytes):>10}")
    spare = f"{byte_text(device.margin_bytes)} spare" if device.margin_bytes >= 0 else ""
    short = f"{byte_text(-device.margin_bytes)} too little" if device.margin_bytes < 0 else ""
    return [*lines, f"  {device.verdict.value}: {spare or short}"]


def _host_line(plan: Plan) -> str:
    needed, available = byte_text(plan.host_load_bytes), byte_text(plan.host_available_bytes)
    return f"host while loading: {needed} of {available}: {plan.host_verdict.value}"


def _speed_lines(plan: Plan) -> list[str]:
    speed = plan.speed
    turn = f"; held back by computing from batch {speed.turning_batch} on" if speed.turning_batch else ""
    lines = [f"{three_digits(speed.tokens_per_s)} tokens/s for one request (bound by {speed.bound})"]
    if plan.batch > 1:
        lines.append(
            f"{three_digits(speed.batch_tokens_per_s)} tokens/s for {plan.batch} (bound by {speed.batch_bound})"
        )
    lines.append(
        f"first token of {speed.prompt_tokens:,} prompt tokens after {three_digits(speed.ttft_s)} s (bound by "
        f"{speed.prefill_bound}){turn}"
    )
    lines.append(f"rates {speed.rates.origin}" + (f"; {speed.calibration}" if speed.calibration else ""))
    return lines


def _row(name: str, cells: list[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
