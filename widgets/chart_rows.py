"""What a live plot shows: rows of lines over one time axis. Names series; measures and draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.backends import BackendStatus

__all__ = ["ChartLine", "ChartRow", "memory_rows", "owners_row", "throughput_rows", "utilisation_row"]

_GB = 1e9
_MS = 1e-3
_OWNERS = {
    "weights": "Weights",
    "kv": "KV cache",
    "activations": "Activations",
    "slack": "Allocator",
    "context": "Rest of this process",
    "others": "Others",
}


@dataclass(frozen=True)
class ChartLine:
    """One line: which series, its name in words, and what its values are divided by to be in the row's unit."""

    series: str
    label: str
    scale: float = 1.0


@dataclass(frozen=True)
class ChartRow:
    """Lines that share a value axis. `limit` is the most there is, in `unit`; a threshold is a share of it.

    `is_stacked` draws the lines as areas on top of each other: they are parts of a whole.
    """

    title: str
    unit: str
    lines: tuple[ChartLine, ...]
    limit: float | None = None
    is_stacked: bool = False


def memory_rows(statuses: Sequence[BackendStatus]) -> tuple[ChartRow, ...]:
    """Memory in GB: of this process beside the machine's own, then of each GPU that can be used."""
    return (_host_row(statuses), *(_gpu_row(name, total) for name, total in _gpus(statuses)))


def owners_row(statuses: Sequence[BackendStatus]) -> ChartRow:
    """Memory of the loaded model's device by owner, in GB, on top of each other."""
    totals = [total for _, total in _gpus(statuses)] or _host_totals(statuses)
    lines = tuple(ChartLine(f"owner_{name}_bytes", words, _GB) for name, words in _OWNERS.items())
    return ChartRow("by owner", "GB", lines, totals[0] / _GB if totals else None, is_stacked=True)


def utilisation_row(statuses: Sequence[BackendStatus]) -> ChartRow:
    """How busy the processors are, in percent."""
    gpus = [ChartLine(f"{name}_busy_percent", name) for name, _ in _gpus(statuses)]
    return ChartRow("busy", "%", (ChartLine("cpu_busy_percent", "CPU, this process"), *gpus), limit=100.0)


def throughput_rows() -> tuple[ChartRow, ...]:
    """Tokens per second, time to first token, requests in the batch and waiting, and use of the KV pool."""
    return (
        ChartRow(
            "speed",
            "tokens/s",
            (ChartLine("generated_tokens_per_s", "Generation"), ChartLine("prompt_tokens_per_s", "Prompt")),
        ),
        ChartRow("first token", "ms", (ChartLine("ttft_s", "Time to first token", _MS),)),
        ChartRow(
            "requests", "", (ChartLine("requests_running", "In the batch"), ChartLine("requests_waiting", "Waiting"))
        ),
        ChartRow("KV pool", "%", (ChartLine("kv_used_fraction", "KV pool in use", 0.01),), limit=100.0),
    )


def _gpus(statuses: Sequence[BackendStatus]) -> list[tuple[str, int]]:
    return [
        (f"{status.name}:{device.index}", device.total_bytes)
        for status in statuses
        if status.available and status.backend.device_type != "cpu"
        for device in status.devices
    ]


def _host_totals(statuses: Sequence[BackendStatus]) -> list[int]:
    return [device.total_bytes for status in statuses if status.name == "cpu" for device in status.devices]


def _host_row(statuses: Sequence[BackendStatus]) -> ChartRow:
    totals = _host_totals(statuses)
    lines = (ChartLine("process_memory_bytes", "This process", _GB),)
    return ChartRow("memory", "GB", lines, totals[0] / _GB if totals else None)


def _gpu_row(name: str, total_bytes: int) -> ChartRow:
    lines = (
        ChartLine(f"{name}_used_bytes", f"{name}, by everybody", _GB),
        ChartLine(f"{name}_process_bytes", f"{name}, this process", _GB),
    )
    return ChartRow(f"memory of {name}", "GB", lines, total_bytes / _GB)
