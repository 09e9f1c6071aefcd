"""What each type really does on a device: run once on a small matrix, with the time it took or the reason why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from workbench.quantize.config import QuantizationConfig
from workbench.quantize.quantization_type import QuantizationType

if TYPE_CHECKING:
    import torch

    from workbench.quantize.methods import Method

__all__ = ["Capability", "CapabilityState", "probe_capabilities"]

# Large enough that the product and not the call is timed, small enough for all types in a second or two.
_SIZE = 1024
_NUM_RUNS = 5
# A type that takes this many times as long as the unquantised product is called slow.
_SLOW_RATIO = 3.0
# Rounding may move an output by no more than this share of its size; more means that the kernel is wrong here.
_MOST_ERROR = 0.25
_PROBED = (
    QuantizationConfig("int8", dynamic=False, preserve_accuracy=False),
    QuantizationConfig("int4", preserve_accuracy=False),
    QuantizationConfig("dynamic", preserve_accuracy=False),
    QuantizationConfig("static", preserve_accuracy=False),
    QuantizationConfig("nf4", preserve_accuracy=False),
    QuantizationConfig("fp8", preserve_accuracy=False),
)


class CapabilityState(Enum):
    """WORKS at about the speed of the unquantised product or better; SLOW well below it; NOT at all."""

    WORKS = "works"
    SLOW = "slow"
    NOT = "not"


@dataclass(frozen=True)
class Capability:
    """One type on one device. `relative_speed` is that of one row times the matrix against the unquantised product in
    the device's own precision (2.0: twice as fast), None where it does not run; `reason` says why SLOW or NOT."""

    name: str
    device: str
    state: CapabilityState
    reason: str
    relative_speed: float | None = None
    relative_error: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it runs."""
        return self.state is not CapabilityState.NOT

    @property
    def in_words(self) -> str:
        """ "works, 1.2 times the speed of the unquantised product", "slow: ...", "not: ..."."""
        if self.state is CapabilityState.WORKS:
            return f"works, {self.relative_speed:.1f} times the speed of the unquantised product"
        return f"{self.state.value}: {self.reason}"


def probe_capabilities(
    device: str = "cpu", dtype: str = "bf16", *, clock: Callable[[], float] = time.perf_counter
) -> tuple[Capability, ...]:
    """Every type on torch device `device` ("cpu", "cuda:0"), computed in `dtype`. Loads torch; takes seconds."""
    import torch

    from workbench.backends import torch_dtype

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SIZE, _SIZE, generator=generator).to(device, torch_dtype(dtype))
    row = torch.randn(1, _SIZE, generator=generator).to(device, torch_dtype(dtype))
    with torch.inference_mode():
        dense_s = _best_time(lambda: torch.nn.functional.linear(row, weight), device, clock)
        return tuple(_probe(config, weight, row, dense_s, device, clock) for config in _PROBED)


def _probe(
    config: QuantizationConfig,
    weight: torch.Tensor,
    row: torch.Tensor,
    dense_s: float,
    device: str,
    clock: Callable[[], float],
) -> Capability:
    import torch

    from workbench.quantize.methods import METHODS, unavailable_reason

    name = config.quantization_type.value
    reason = unavailable_reason(config.quantization_type, device.partition(":")[0])
    if reason is not None:
        return Capability(name, device, CapabilityState.NOT, reason)
    try:
        layer = _layer(METHODS[config.quantization_type], config, weight, row)
        exact = torch.nn.functional.linear(row, weight).float()
        error = float((layer(row).float() - exact).norm() / exact.norm())
        run_s = _best_time(lambda: layer(row), device, clock)
    # Boundary: a kernel that is missing or broken here may raise anything, and that is the answer.
    except Exception as failure:
        words = str(failure).strip().splitlines()[0] if str(failure).strip() else ""
        return Capability(name, device, CapabilityState.NOT, f"it fails here: {type(failure).__name__}: {words[:200]}")
    if not error < _MOST_ERROR:
        return Capability(name, device, CapabilityState.NOT, f"its results are {error:.0%} off", None, error)
    speed = dense_s / run_s
    if speed < 1 / _SLOW_RATIO:
        words = f"{1 / speed:.1f} times as long as the unquantised product"
        return Capability(name, device, CapabilityState.SLOW, words, speed, error)
    return Capability(name, device, CapabilityState.WORKS, "", speed, error)


def _layer(method: Method, config: QuantizationConfig, weight: torch.Tensor, row: torch.Tensor) -> torch.nn.Module:
    """A layer as loading makes it, calibrated on the row where it must be."""
    import torch

    from workbench.quantize.weight_use import WeightUse

    if config.quantization_type is QuantizationType.STATIC:
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        holder = torch.nn.Sequential(plain)
        method.apply(holder, config, [row])
        return holder.get_submodule("0")
    packed = method.pack(weight, config, WeightUse())
    if packed is None:
        raise RuntimeError("its layout does not hold the matrix")
    return packed.linear(None)


def _best_time(run: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    run()
    times: Sequence[float] = []
    for _ in range(_NUM_RUNS):
        _wait(device)
        started = clock()
        run()
        _wait(device)
        times = [*times, clock() - started]
    # A clock may be too coarse to see a run.
    return max(min(times), 1e-9)


def _wait(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)
