"""Energy and memory of one NVIDIA GPU, by its driver's counters."""

from __future__ import annotations

from typing import Any

from workbench.backends.nvml import device_used_bytes, driver_uuid

__all__ = ["GPUMeter", "used_bytes_by_gpu"]

_MILLI = 1000.0


class GPUMeter:
    """The GPU of that UUID. `driver` is a pynvml (for tests); without one, or without that GPU, it reads None."""

    def __init__(self, uuid: str | None, driver: Any = None) -> None:
        self._driver: Any = None
        self._handle: Any = None
        if uuid is None:
            return
        # The library's errors share no base that can be named before it is imported.
        try:
            if driver is None:
                import pynvml

                driver = pynvml
            driver.nvmlInit()
            self._handle = driver.nvmlDeviceGetHandleByUUID(driver_uuid(uuid))
            self._driver = driver
        except Exception:
            self._handle = None

    def joules(self) -> float | None:
        """Counted since the driver was loaded, all of the card; None where it does not count (before Volta)."""
        if self._driver is None:
            return None
        try:
            return float(self._driver.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / _MILLI
        except Exception:
            return None

    def used_bytes(self) -> int | None:
        """Device memory in use, whoever uses it."""
        if self._driver is None:
            return None
        try:
            return device_used_bytes(self._driver, self._handle)
        except Exception:
            return None


def used_bytes_by_gpu(driver: Any = None) -> dict[str, int]:
    """Memory in use now, by UUID; empty where there is no driver."""
    try:
        if driver is None:
            import pynvml

            driver = pynvml
        driver.nvmlInit()
        handles = [driver.nvmlDeviceGetHandleByIndex(index) for index in range(driver.nvmlDeviceGetCount())]
        return {str(driver.nvmlDeviceGetUUID(handle)): device_used_bytes(driver, handle) for handle in handles}
    # As above.
    except Exception:
        return {}
