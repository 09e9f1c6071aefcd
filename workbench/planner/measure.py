"""Measures this machine's devices for the planner: one call, under three seconds a device."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.backends import Backend
from workbench.planner.layout import parse_parallel
from workbench.planner.rates import DeviceRates
from workbench.planner.roofline import measure_rates
from workbench.planner.target import find_targets

__all__ = ["measure"]


def measure(
    backend: str | Backend | None = None, gpus: int | Sequence[int | str] | None = None
) -> dict[str, DeviceRates]:
    """Rates by device ("cpu", "cuda:0"): read bandwidth, products a second by precision, time to start an operation.

    Devices are named as for `plan`, with the same errors. The result is remembered under `WORKBENCH_HOME` until the
    driver or torch changes, and plans use it. Measure on an idle machine: what else runs makes it look slow.
    """
    gpu_ids, _ = parse_parallel(None, gpus)
    return {target.label: measure_rates(target) for target in find_targets(backend, gpu_ids)}
