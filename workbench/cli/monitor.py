"""`workbench monitor`: processor, memory and GPUs of this machine, as they change, until Ctrl-C or for a while."""

from __future__ import annotations

import csv
import json
import math
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from workbench.byte_size import byte_size
from workbench.errors import ConfigError
from workbench.telemetry import Sampler
from workbench.telemetry.sensors import machine_sensors

__all__ = ["OutputFormat", "command"]

Beat = dict[str, float]


class OutputFormat(StrEnum):
    """What is printed at each beat."""

    CSV = "csv"
    JSON = "json"
    LIVE = "live"


def command(
    ctx: typer.Context,
    *,
    interval: Annotated[float, typer.Option(help="Seconds between two readings.")] = 1.0,
    duration: Annotated[float | None, typer.Option(help="Seconds until it ends.", show_default="until Ctrl-C")] = None,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option(
            help="csv with a header, json with one object a line, or live.", show_default="live on a terminal"
        ),
    ] = None,
) -> None:
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ConfigError(f"duration={duration}: must be a positive number of seconds")
    chosen = output_format or (OutputFormat.LIVE if sys.stdout.isatty() else OutputFormat.CSV)
    sampler = Sampler(machine_sensors(), interval, capacity=2)
    with _PRINTERS[chosen]() as show:
        _run(sampler, duration, lambda: show(_newest(sampler)))


def _run(sampler: Sampler, duration_s: float | None, on_beat: Callable[[], None]) -> None:
    """Print at every beat, on this thread: the sampler's only says when."""
    has_beat = threading.Event()
    forget = sampler.observe(lambda time_s: has_beat.set())
    ends_s = math.inf if duration_s is None else sampler.now_s() + duration_s
    try:
        with sampler:
            while (left_s := ends_s - sampler.now_s()) > 0:
                # Cut into pieces, so that Ctrl-C is noticed.
                if has_beat.wait(min(left_s, 0.2)):
                    has_beat.clear()
                    on_beat()
    except KeyboardInterrupt:
        pass
    finally:
        forget()


def _newest(sampler: Sampler) -> Beat:
    views = {name: series.view() for name, series in sampler.series.items()}
    return {name: view.values[-1] for name, view in views.items() if len(view)}


class _Csv:
    """A column for every number of the first reading; one that is missing later stays empty."""

    def __enter__(self) -> Callable[[Beat], None]:
        self._writer: csv.DictWriter[str] | None = None
        return self._show

    def __exit__(self, *exc_info: object) -> None:
        pass

    def _show(self, beat: Beat) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(sys.stdout, ["time", *beat], extrasaction="ignore", restval="")
            self._writer.writeheader()
        self._writer.writerow({"time": _now()} | _exact(beat))
        sys.stdout.flush()


class _Json:
    def __enter__(self) -> Callable[[Beat], None]:
        return lambda beat: print(json.dumps({"time": _now(), **beat}), flush=True)

    def __exit__(self, *exc_info: object) -> None:
        pass


class _Live:
    """One table that is drawn over on a terminal; elsewhere a table at each beat."""

    def __enter__(self) -> Callable[[Beat], None]:
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        if not console.is_terminal:
            return lambda beat: console.print(_table(beat))
        self._live: Any = Live(console=console, auto_refresh=False)
        self._live.__enter__()
        return lambda beat: self._live.update(_table(beat), refresh=True)

    def __exit__(self, *exc_info: object) -> None:
        live = getattr(self, "_live", None)
        if live is not None:
            live.__exit__(None, None, None)


_PRINTERS: Mapping[OutputFormat, Callable[[], AbstractContextManager[Callable[[Beat], None]]]] = {
    OutputFormat.CSV: _Csv,
    OutputFormat.JSON: _Json,
    OutputFormat.LIVE: _Live,
}


def _table(beat: Beat) -> Any:
    from rich.table import Table

    table = Table("device", "memory", "", "load", "heat", "power", box=None, pad_edge=False)
    devices = dict.fromkeys(name.partition("_")[0] for name in beat)
    for device in devices:
        used, total = beat.get(f"{device}_memory_used_bytes"), beat.get(f"{device}_memory_total_bytes")
        load = beat.get(f"{device}_load_percent", beat.get(f"{device}_cpu_percent"))
        table.add_row(
            device,
            "" if used is None else f"{byte_size(int(used))} of {byte_size(int(total or 0))}",
            "" if used is None or not total else _bar(used / total),
            _with_unit(load, "%"),
            _with_unit(beat.get(f"{device}_temperature_celsius"), " C"),
            _with_unit(beat.get(f"{device}_power_watts"), " W"),
        )
    return table


def _bar(share: float, width: int = 20) -> str:
    full = round(width * min(1.0, max(0.0, share)))
    return "#" * full + "." * (width - full)


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f}{unit}"


def _exact(beat: Beat) -> dict[str, float | int]:
    """Whole numbers as such: bytes keep all their digits."""
    return {name: int(value) if value.is_integer() else value for name, value in beat.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
