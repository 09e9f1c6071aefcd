"""Probes of the machine itself: processor and memory of the host, and each GPU's memory, load, heat and power."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psutil

from workbench.backends.nvml import device_used_bytes

__all__ = ["AMDSensors", "HostSensors", "NVIDIASensors", "machine_sensors"]

_MILLI = 1000.0


class HostSensors:
    """`host_cpu_percent` (100 is every core busy), `host_memory_used_bytes` and `host_memory_total_bytes`."""

    def __init__(self) -> None:
        # The first reading counts from here.
        psutil.cpu_percent()

    def read(self) -> Mapping[str, float]:
        """Numbers now; the processor's since the last reading."""
        memory = psutil.virtual_memory()
        return {
            "host_cpu_percent": psutil.cpu_percent(),
            "host_memory_used_bytes": float(memory.total - memory.available),
            "host_memory_total_bytes": float(memory.total),
        }


class NVIDIASensors:
    """All devices that the driver shows: `gpu<n>_memory_used_bytes`, `..._memory_total_bytes`, `..._load_percent`,
    `..._temperature_celsius`, `..._power_watts`. What a device cannot tell is left out. `driver` is a pynvml."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        driver.nvmlInit()
        self._handles = [driver.nvmlDeviceGetHandleByIndex(index) for index in range(driver.nvmlDeviceGetCount())]

    @property
    def num_devices(self) -> int:
        """How many there are."""
        return len(self._handles)

    def read(self) -> Mapping[str, float]:
        """Numbers now."""
        numbers: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            memory = self._driver.nvmlDeviceGetMemoryInfo(handle)
            numbers[f"gpu{index}_memory_used_bytes"] = float(device_used_bytes(self._driver, handle))
            numbers[f"gpu{index}_memory_total_bytes"] = float(memory.total)
            for name, ask in self._questions(handle).items():
                value = _answer(ask)
                if value is not None:
                    numbers[f"gpu{index}_{name}"] = value
        return numbers

    def _questions(self, handle: Any) -> Mapping[str, Callable[[], float]]:
        driver = self._driver
        return {
            "load_percent": lambda: driver.nvmlDeviceGetUtilizationRates(handle).gpu,
            "temperature_celsius": lambda: driver.nvmlDeviceGetTemperature(handle, driver.NVML_TEMPERATURE_GPU),
            "power_watts": lambda: driver.nvmlDeviceGetPowerUsage(handle) / _MILLI,
        }


class AMDSensors:
    """The same of AMD devices. `library` is an amdsmi."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.amdsmi_init()
        self._handles = list(library.amdsmi_get_processor_handles())

    @property
    def num_devices(self) -> int:
        """How many there are."""
        return len(self._handles)

    def read(self) -> Mapping[str, float]:
        """Numbers now."""
        numbers: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            for name, ask in self._questions(handle).items():
                value = _answer(ask)
                if value is not None:
                    numbers[f"gpu{index}_{name}"] = value
        return numbers

    def _questions(self, handle: Any) -> Mapping[str, Callable[[], float]]:
        library = self._library
        vram = library.AmdSmiMemoryType.VRAM
        edge, now = library.AmdSmiTemperatureType.EDGE, library.AmdSmiTemperatureMetric.CURRENT
        return {
            "memory_used_bytes": lambda: library.amdsmi_get_gpu_memory_usage(handle, vram),
            "memory_total_bytes": lambda: library.amdsmi_get_gpu_memory_total(handle, vram),
            "load_percent": lambda: library.amdsmi_get_gpu_activity(handle)["gfx_activity"],
            "temperature_celsius": lambda: library.amdsmi_get_temp_metric(handle, edge, now),
            "power_watts": lambda: library.amdsmi_get_power_info(handle)["average_socket_power"],
        }


def machine_sensors() -> list[HostSensors | NVIDIASensors | AMDSensors]:
    """Probes of all that this machine can be asked about."""
    found: list[HostSensors | NVIDIASensors | AMDSensors] = [HostSensors()]
    for module_name, make in (("pynvml", NVIDIASensors), ("amdsmi", AMDSensors)):
        # A machine without such devices has no such library, or one that refuses to start; their errors share no base.
        try:
            probe = make(__import__(module_name))
        except Exception:
            continue
        if probe.num_devices:
            found.append(probe)
    return found


def _answer(ask: Callable[[], float]) -> float | None:
    """The number, or None where the device does not tell: the libraries' errors share no base, and some say "N/A"."""
    try:
        return float(ask())
    except Exception:
        return None
