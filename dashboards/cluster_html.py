"""The Cluster tab's cards as HTML: one for each engine and each device. Pure; knows no component."""

from __future__ import annotations

import html

from dashboards.cluster import ClusterView, DeviceView, EngineView

__all__ = ["cluster_html"]


def cluster_html(view: ClusterView) -> str:
    """All of a view: words first, then what is less than asked, engines, devices."""
    parts = [f"<p>{html.escape(view.words)}</p>"]
    if view.degraded:
        parts.append(f'<p role="alert"><b>Less than asked: {html.escape(view.degraded)}</b></p>')
    if view.balancing:
        parts.append(f"<p>{html.escape(view.balancing)}</p>")
    if view.engines:
        parts.append(f'<h4>Engines</h4><div class="wb-cards">{"".join(map(_engine, view.engines))}</div>')
    if view.devices:
        parts.append(f'<h4>Devices</h4><div class="wb-cards">{"".join(map(_device, view.devices))}</div>')
    return f'<div class="wb-cluster">{"".join(parts)}</div>'


def _engine(engine: EngineView) -> str:
    state = "runs" if engine.is_alive else "has stopped"
    lines = [_load(engine.load, _in_flight(engine))]
    if engine.tokens_per_s is not None:
        lines.append(f"{engine.tokens_per_s:,.1f} tokens/s")
    if engine.requests_total is not None:
        lines.append(f"{engine.requests_total:,} request{_s(engine.requests_total)} so far")
    if engine.weight_bytes is not None:
        lines.append(f"weights {_mb(engine.weight_bytes)}, KV pool {_mb(engine.kv_bytes or 0)}")
    if engine.num_processes:
        lines.append(f"{engine.num_processes} process{'' if engine.num_processes == 1 else 'es'}")
    if engine.bubble_share is not None:
        lines.append(f"its stages are idle {engine.bubble_share:.0%} of the time")
    mark = "ready" if engine.is_alive else "crashed"
    dot = f'<span class="wb-{mark}"><span class="wb-dot" aria-hidden="true"></span></span>'
    title = f"{dot} <b>{html.escape(engine.name)}</b> {state}"
    return _card(title, [html.escape(engine.devices), *lines])


def _device(device: DeviceView) -> str:
    lines = [html.escape(device.label)] if device.label else []
    if device.memory_share is not None:
        total = f" of {device.total_bytes / 1e9:,.1f} GB" if device.total_bytes else ""
        lines.append(_bar(device.memory_share, f"memory: {device.memory_share:.0%}{total} in use"))
    if device.load is not None:
        lines.append(_load(device.load, ""))
    if device.busy_percent is not None:
        lines.append(f"busy {device.busy_percent:.0f} %")
    return _card(f"<b>{html.escape(device.name)}</b>", lines)


def _in_flight(engine: EngineView) -> str:
    return "" if engine.num_in_flight is None else f"{engine.num_in_flight} in flight"


def _load(load: float | None, words: str) -> str:
    if load is None:
        return words
    return _bar(load, ", ".join(filter(None, (words, f"load {load:.0%}"))))


def _bar(share: float, words: str) -> str:
    width = 100 * min(1.0, max(0.0, share))
    filled = f'<span class="wb-history" style="width:{width:.1f}%"></span>'
    return f'<div class="wb-bar" aria-hidden="true">{filled}</div>{words}'


def _card(title: str, lines: list[str]) -> str:
    shown = "".join(f"<div>{line}</div>" for line in lines if line)
    return f'<div class="wb-tile wb-card"><div>{title}</div>{shown}</div>'


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
