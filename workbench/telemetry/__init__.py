"""Numbers over time and by request: series, probes, one sampler thread, histograms, a request log, memory by owner.

Knows nothing of widgets or servers.
"""

from __future__ import annotations

from workbench.telemetry.device_memory import DeviceMemory
from workbench.telemetry.device_usage import DeviceUsage, GPUUsage, HostUsage
from workbench.telemetry.engine_rates import EngineRates
from workbench.telemetry.histogram import Histogram, HistogramView
from workbench.telemetry.memory_owners import MemoryOwners, share_out
from workbench.telemetry.owned_memory import ModelMemory, OwnedMemory
from workbench.telemetry.probe import Probe
from workbench.telemetry.process_memory import ProcessMemory
from workbench.telemetry.processor_use import ProcessorUse
from workbench.telemetry.request_log import RequestLog, RequestRow
from workbench.telemetry.sampler import Sampler
from workbench.telemetry.sensors import machine_sensors
from workbench.telemetry.series import Series, SeriesView
from workbench.telemetry.step_profile import OperationRow, StepProfile, StepSplit
from workbench.telemetry.tracing import trace_requests

__all__ = [
    "DeviceMemory",
    "DeviceUsage",
    "EngineRates",
    "GPUUsage",
    "Histogram",
    "HistogramView",
    "HostUsage",
    "MemoryOwners",
    "ModelMemory",
    "OperationRow",
    "OwnedMemory",
    "Probe",
    "ProcessMemory",
    "ProcessorUse",
    "RequestLog",
    "RequestRow",
    "Sampler",
    "Series",
    "SeriesView",
    "StepProfile",
    "StepSplit",
    "machine_sensors",
    "share_out",
    "trace_requests",
]
