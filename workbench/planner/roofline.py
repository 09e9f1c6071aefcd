"""Measures a device: how fast it reads memory, multiplies in each precision and starts operations. Takes under three
seconds; the result is kept until the driver or a library changes."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.planner.machine_file import MachineFile
from workbench.planner.rates import DeviceRates, assumed_rates
from workbench.planner.target import Target

if TYPE_CHECKING:
    import torch

__all__ = ["device_key", "device_versions", "known_rates", "measure_rates"]

_FILE = MachineFile("rooflines.json")
_MIB = 1024**2
# Beyond any cache, and a quarter of a second's reading at most.
_CPU_READ_BYTES, _GPU_READ_BYTES = 256 * _MIB, 2048 * _MIB
_COPY_BYTES = 256 * _MIB
_CPU_SIDE, _GPU_SIDE = 1024, 8192
_SECONDS_EACH = 0.25
_LEAST_REPEATS, _MOST_REPEATS = 3, 200
_SMALL_SIDE = 64
_SMALL_OPERATIONS = 6


def known_rates(target: Target) -> DeviceRates:
    """What was measured on this device under these versions, else what is assumed for one of its kind."""
    if target.is_here:
        entry = _FILE.read().get(device_key(target))
        if isinstance(entry, dict) and entry.get("versions") == device_versions(target):
            try:
                measured = _Measured(
                    entry["read_bytes_per_s"], dict(entry["flops"]), entry["launch_s"], entry["host_copy_bytes_per_s"]
                )
                return measured.rates()
            except (KeyError, TypeError, ValueError):
                pass
    return assumed_rates(target.backend_name, target.name, target.num_cores)


def measure_rates(target: Target) -> DeviceRates:
    """Measure now, on an otherwise idle device, and remember it. Loads torch."""
    import torch

    on_gpu = target.is_gpu
    num_threads = torch.get_num_threads()
    if not on_gpu:
        torch.set_num_threads(target.num_cores)
    try:
        with torch.inference_mode():
            measured = _measure(target)
    finally:
        torch.set_num_threads(num_threads)
    entry = {
        "read_bytes_per_s": measured.read_bytes_per_s,
        "flops": measured.flops,
        "launch_s": measured.launch_s,
        "host_copy_bytes_per_s": measured.host_copy_bytes_per_s,
        "versions": device_versions(target),
    }
    _FILE.update(lambda content: {**content, device_key(target): entry})
    return measured.rates()


def device_key(target: Target) -> str:
    """Names a device on this machine: two of one kind are taken for equal."""
    cores = f", {target.num_cores} cores" if not target.is_gpu else ""
    return f"{target.backend_name}: {target.name}{cores}"


def device_versions(target: Target) -> dict[str, str]:
    """What a measurement depends on besides the device."""
    versions = {"torch": _version("torch")}
    if target.backend_name == "cuda":
        versions["driver"] = _nvidia_driver()
    elif target.backend_name == "cpu":
        versions["architecture"] = target.architecture or platform.machine()
    return versions


@dataclass(frozen=True)
class _Measured:
    read_bytes_per_s: float
    flops: dict[str, float]
    launch_s: float
    host_copy_bytes_per_s: float | None

    def rates(self) -> DeviceRates:
        if not (self.read_bytes_per_s > 0 and self.launch_s > 0 and self.flops):
            raise ValueError("a measured rate must be above 0")
        rates = DeviceRates(self.read_bytes_per_s, self.flops, self.launch_s, "measured here", is_measured=True)
        copy = self.host_copy_bytes_per_s
        return rates if copy is None else replace(rates, host_copy_bytes_per_s=copy)


def _measure(target: Target) -> _Measured:
    import torch

    device = target.label if target.is_gpu else "cpu"
    wait = functools.partial(torch.cuda.synchronize, device) if target.is_gpu else _nothing
    read_bytes = min(_GPU_READ_BYTES if target.is_gpu else _CPU_READ_BYTES, target.free_bytes // 4)
    numbers = torch.ones(read_bytes // 4, dtype=torch.float32, device=device)
    read_s = _best_s(numbers.sum, wait)
    del numbers
    side = _GPU_SIDE if target.is_gpu else _CPU_SIDE
    flops = {name: _matmul_flops(name, side, device, wait) for name in target.dtypes}
    copy = _host_copy_bytes_per_s(device, wait) if target.is_gpu else None
    return _Measured(read_bytes / read_s, flops, _launch_s(device, wait), copy)


def _host_copy_bytes_per_s(device: str, wait: Callable[[], None]) -> float:
    import torch

    kept = torch.ones(_COPY_BYTES // 4, dtype=torch.float32, pin_memory=True)
    return _COPY_BYTES / _best_s(lambda: kept.to(device), wait)


def _matmul_flops(dtype: str, side: int, device: str, wait: Callable[[], None]) -> float:
    """A product of two square matrices; a smaller one where the device is slow at this precision."""
    import torch

    from workbench.backends import torch_dtype

    side = _affordable_side(dtype, side, device, wait)
    left, right = (torch.ones(side, side, dtype=torch_dtype(dtype), device=device) for _ in range(2))
    return 2 * side**3 / _best_s(lambda: torch.mm(left, right), wait)


def _affordable_side(dtype: str, side: int, device: str, wait: Callable[[], None]) -> int:
    import torch

    from workbench.backends import torch_dtype

    small = side // 4
    left, right = (torch.ones(small, small, dtype=torch_dtype(dtype), device=device) for _ in range(2))
    once_s = _best_s(lambda: torch.mm(left, right), wait, seconds=0.02)
    # Eight times the work for twice the side.
    return side if once_s * 4**3 < _SECONDS_EACH / _LEAST_REPEATS else small


def _launch_s(device: str, wait: Callable[[], None]) -> float:
    """Time of the host for one small operation, of the kinds that a decoder's layer is made of."""
    import torch
    from torch import nn

    layer = nn.Linear(_SMALL_SIDE, _SMALL_SIDE, device=device)
    row = torch.ones(1, _SMALL_SIDE, device=device)

    def some_operations() -> torch.Tensor:
        out = layer(row)
        out = out * row + row
        return torch.cat((out, row), dim=-1).view(2, -1).transpose(0, 1).rsqrt()

    return _best_s(some_operations, wait, seconds=0.1, take=statistics.median) / _SMALL_OPERATIONS


def _best_s(
    run: Callable[[], Any],
    wait: Callable[[], None],
    seconds: float = _SECONDS_EACH,
    take: Callable[[list[float]], float] = min,
) -> float:
    """Seconds of one `run`, the best of as many as fit: whatever disturbs a run makes it longer, never shorter."""
    run()
    wait()
    times: list[float] = []
    ends_s = time.perf_counter() + seconds
    while len(times) < _LEAST_REPEATS or (time.perf_counter() < ends_s and len(times) < _MOST_REPEATS):
        started_s = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - started_s)
    return take(times)


def _nothing() -> None:
    pass


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def _nvidia_driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    # pynvml's errors share no base that can be named before it is imported.
    except Exception:
        return "unknown"
