"""Passes measured numbers on to the sinks that plugins bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from workbench.plugins import default_plugins
from workbench.telemetry.series import Series

__all__ = ["tell_sinks"]


def tell_sinks(time_s: float, series: Mapping[str, Series]) -> None:
    """Give every sink the newest number of each series. Costs next to nothing where there is none."""
    plugins = default_plugins()
    sinks = plugins.at("telemetry_sinks")
    if not sinks:
        return
    values = {name: each.last for name, each in series.items() if each.last is not None}
    for name, sink in sinks.items():
        plugins.attempt(sink.plugin, f"sink {name}", partial(sink.value, time_s, dict(values)), None)
