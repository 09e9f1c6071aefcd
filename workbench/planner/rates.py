"""How fast a device reads, multiplies and starts work: measured here, from a data sheet, or assumed; it says which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from workbench.aws import InstanceCatalogue

__all__ = ["DeviceRates", "assumed_rates"]

# Shares of a data sheet's peaks that kernels reach: reads 0.8 and more, large 16-bit products a little over half.
_REACHED_BANDWIDTH = 0.8
_REACHED_COMPUTE = 0.55
# One core of a current server reads about this much; more cores share the sockets' channels.
_CPU_CORE_BYTES_PER_S, _CPU_MOST_BYTES_PER_S = 8e9, 200e9
_CPU_CORE_FP32_FLOPS = 50e9
_UNKNOWN_GPU_BYTES_PER_S, _UNKNOWN_GPU_FLOPS = 500e9, 50e12
# PCI Express 4 with 16 lanes gives about this much of its 32 GB/s; newer buses twice that.
_HOST_COPY_BYTES_PER_S = 25e9
_CPU_LAUNCH_S, _GPU_LAUNCH_S = 12e-6, 6e-6


@dataclass(frozen=True)
class DeviceRates:
    """`read_bytes_per_s` from memory; `flops` per second of large products by precision ("fp32", "bf16", "fp16");
    `launch_s` of host time for one small operation; `host_copy_bytes_per_s` from the host's pinned memory to a GPU.
    `origin` says where they come from."""

    read_bytes_per_s: float
    flops: Mapping[str, float]
    launch_s: float
    origin: str
    is_measured: bool = False
    host_copy_bytes_per_s: float = _HOST_COPY_BYTES_PER_S

    def flops_of(self, dtype: str) -> float:
        """Products in `dtype`; where that was not measured, the slowest of those that were."""
        return self.flops.get(dtype) or min(self.flops.values())

    def shared_by(self, count: int) -> DeviceRates:
        """The rates of each of `count` processes that use the device at once. Each starts its own operations."""
        if count == 1:
            return self
        flops = {dtype: rate / count for dtype, rate in self.flops.items()}
        origin = f"{self.origin}, shared by {count} processes"
        return replace(self, read_bytes_per_s=self.read_bytes_per_s / count, flops=flops, origin=origin)


def assumed_rates(backend_name: str, device_name: str, num_cores: int) -> DeviceRates:
    """Rates of a device that was never measured: a GPU's from the shipped data sheets by its name, others by rule."""
    if backend_name == "cpu":
        speed = min(num_cores * _CPU_CORE_BYTES_PER_S, _CPU_MOST_BYTES_PER_S)
        core_flops = num_cores * _CPU_CORE_FP32_FLOPS
        rates = {"fp32": core_flops, "bf16": core_flops, "fp16": core_flops / 4}
        return DeviceRates(speed, rates, _CPU_LAUNCH_S, f"assumed for {num_cores} cores, not measured")
    sheet = _data_sheet(device_name)
    if sheet is None:
        flops = {"fp32": _UNKNOWN_GPU_FLOPS / 4, "bf16": _UNKNOWN_GPU_FLOPS, "fp16": _UNKNOWN_GPU_FLOPS}
        return DeviceRates(_UNKNOWN_GPU_BYTES_PER_S, flops, _GPU_LAUNCH_S, "assumed for an unknown GPU, not measured")
    bandwidth, flops_16bit = sheet
    flops = {"fp32": flops_16bit / 8, "bf16": flops_16bit, "fp16": flops_16bit}
    return DeviceRates(bandwidth, flops, _GPU_LAUNCH_S, "from the GPU's data sheet, not measured")


def _data_sheet(device_name: str) -> tuple[float, float] | None:
    """Bytes and operations a second that kernels reach on the GPU whose product name is part of `device_name`."""
    words = device_name.replace("-", " ").split()
    gpus = {row.gpu.product: row.gpu for row in InstanceCatalogue.shipped().list() if row.gpu}
    found = [gpu for product, gpu in gpus.items() if product in words]
    if not found:
        return None
    gpu = max(found, key=lambda gpu: len(gpu.product))
    flops = (gpu.tflops_16bit or _UNKNOWN_GPU_FLOPS / 1e12) * 1e12 * _REACHED_COMPUTE
    return gpu.bandwidth_gb_s * 1e9 * _REACHED_BANDWIDTH, flops
