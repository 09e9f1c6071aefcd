"""Numbers over time: bounded series, probes that read them, one sampler thread. Knows nothing of widgets or servers."""

from __future__ import annotations

from workbench.telemetry.device_memory import DeviceMemory
from workbench.telemetry.engine_rates import EngineRates
from workbench.telemetry.probe import Probe
from workbench.telemetry.process_memory import ProcessMemory
from workbench.telemetry.processor_use import ProcessorUse
from workbench.telemetry.sampler import Sampler
from workbench.telemetry.series import Series, SeriesView

__all__ = ["DeviceMemory", "EngineRates", "Probe", "ProcessMemory", "ProcessorUse", "Sampler", "Series", "SeriesView"]
