"""How long a decode step and a prompt take, from bytes to read, products to compute and operations to start. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.planner.layout import DeviceShare
from workbench.planner.memory import Workload, kv_bytes_per_token
from workbench.planner.model_shape import ModelShape
from workbench.planner.rates import DeviceRates
from workbench.planner.weight_bytes import bytes_read, total_bytes
from workbench.planner.weight_shape import WeightRole

__all__ = ["StepTime", "decode_step", "prefill", "turning_batch"]

# Operations that torch starts one by one for a layer of a decoder, run eagerly; and those of a captured graph, which
# are fused and start without the host.
_EAGER_OPERATIONS, _FUSED_KERNELS = 45, 8
_GRAPH_KERNEL_S = 1.5e-6
# Choosing tokens, the scheduler and the text, per step and per request in it.
_STEP_OPERATIONS, _REQUEST_OPERATIONS = 60, 8
# The plain runner copies a request's cache once before it attends: written and read again.
_GATHER_PASSES = 3
# One small all-reduce between GPUs; two a layer. See `aws/roofline.py` for where the figure comes from.
_REDUCE_S = 20e-6
_LARGEST_BATCH = 4096
_CPU_STEP_TOKENS, _GPU_STEP_TOKENS = 512, 8192


@dataclass(frozen=True)
class StepTime:
    """Seconds by what takes them: reading memory, computing, starting operations on the host, talking to other devices
    or copying from the host's memory.

    `bytes_read` and `operations` are what memory and arithmetic have to do.

    On a GPU the first two overlap with the host; on a CPU the host is what computes, so it comes on top.
    """

    memory_s: float
    compute_s: float
    host_s: float
    communication_s: float = 0.0
    overlaps: bool = False
    bytes_read: float = 0.0
    operations: float = 0.0

    @property
    def total_s(self) -> float:
        """The whole step."""
        device_s = max(self.memory_s, self.compute_s)
        joined_s = max(device_s, self.host_s) if self.overlaps else device_s + self.host_s
        return joined_s + self.communication_s

    @property
    def bound(self) -> str:
        """ "memory", "compute", "host" or "communication": what takes the most."""
        parts = {
            "memory": self.memory_s,
            "compute": self.compute_s,
            "host": self.host_s,
            "communication": self.communication_s,
        }
        return max(parts, key=lambda name: parts[name])


def decode_step(
    shape: ModelShape,
    shares: Sequence[DeviceShare],
    work: Workload,
    rates: DeviceRates,
    *,
    batch: int,
    mean_context: float,
    on_gpu: bool,
) -> StepTime:
    """One token for each of `batch` requests of one replica that have `mean_context` tokens each.

    `shares` are one rank of each stage of the replica: a token passes them one after the other.
    """
    parts = [_decode_part(shape, share, work, rates, batch, mean_context, on_gpu) for share in shares]
    return _sum(parts, on_gpu)


def prefill(
    shape: ModelShape, shares: Sequence[DeviceShare], work: Workload, rates: DeviceRates, *, tokens: int, on_gpu: bool
) -> StepTime:
    """A prompt of `tokens`, alone, until its first token is known."""
    step_tokens = _rows_at_once(on_gpu)
    num_steps = max(1, -(-tokens // step_tokens))
    parts = []
    for share in shares:
        read = _read_bytes(shape, share, work, min(tokens, step_tokens), on_gpu) * num_steps
        products = 2 * _multiplied(shape, share, tokens, 1) + _attention_products(shape, share, tokens)
        host_s = num_steps * _host_s(share, rates, 1, on_gpu)
        communication_s = num_steps * (_communication_s(share) + _copy_s(shape, share, work, rates))
        parts.append(_part(read, products, host_s, communication_s, rates, work.dtype))
    return _sum(parts, on_gpu)


def turning_batch(
    shape: ModelShape,
    shares: Sequence[DeviceShare],
    work: Workload,
    rates: DeviceRates,
    *,
    mean_context: float,
    on_gpu: bool,
) -> int | None:
    """The smallest batch, within a sixteenth, at which computing a step takes longer than reading for it; None if no
    batch up to 4,096 does."""

    def is_bound_by_computing(batch: int) -> bool:
        step = decode_step(shape, shares, work, rates, batch=batch, mean_context=mean_context, on_gpu=on_gpu)
        return step.compute_s >= step.memory_s

    if not is_bound_by_computing(_LARGEST_BATCH):
        return None
    low, high = 0, _LARGEST_BATCH
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if is_bound_by_computing(middle) else (middle, high)
    return high


def _decode_part(
    shape: ModelShape,
    share: DeviceShare,
    work: Workload,
    rates: DeviceRates,
    batch: int,
    mean_context: float,
    on_gpu: bool,
) -> StepTime:
    kv_per_token = kv_bytes_per_token(shape, work.kv_dtype, share.kv_heads, len(share.layers))
    kv = batch * mean_context * kv_per_token * (1 if on_gpu else _GATHER_PASSES)
    num_passes = -(-batch // _rows_at_once(on_gpu))
    read = num_passes * _read_bytes(shape, share, work, batch, on_gpu) + kv
    products = 2 * _multiplied(shape, share, batch, batch)
    host_s = num_passes * _host_s(share, rates, batch, on_gpu)
    communication_s = _communication_s(share) + num_passes * _copy_s(shape, share, work, rates)
    return _part(read, products, host_s, communication_s, rates, work.dtype)


def _rows_at_once(on_gpu: bool) -> int:
    """Rows that one pass through the weights computes."""
    return _GPU_STEP_TOKENS if on_gpu else _CPU_STEP_TOKENS


def _part(
    read: float, products: float, host_s: float, communication_s: float, rates: DeviceRates, dtype: str
) -> StepTime:
    memory_s, compute_s = read / rates.read_bytes_per_s, products / rates.flops_of(dtype)
    return StepTime(memory_s, compute_s, host_s, communication_s, bytes_read=read, operations=products)


def _read_bytes(shape: ModelShape, share: DeviceShare, work: Workload, tokens: int, on_gpu: bool) -> float:
    whole = bytes_read(shape, work.quant, work.dtype, tokens, share.whole + share.on_host, on_gpu=on_gpu)
    return whole + bytes_read(shape, work.quant, work.dtype, tokens, share.split, on_gpu=on_gpu) / share.tensor


def _multiplied(shape: ModelShape, share: DeviceShare, tokens: int, head_rows: int) -> float:
    """Weights times tokens that meet them: all for a matrix, `head_rows` for the output layer."""
    total, whole = 0.0, {id(weight) for weight in share.whole}
    for weight in share.weights:
        part = weight.count * weight.num_elements / (1 if id(weight) in whole else share.tensor)
        match weight.role:
            case WeightRole.MATRIX:
                total += part * tokens
            case WeightRole.EXPERT:
                total += part * tokens * (shape.experts_per_token / shape.num_experts if shape.num_experts else 1)
            case WeightRole.HEAD:
                total += part * head_rows
            case WeightRole.TABLE if not shape.has_own_head and share.has_head:
                total += part * head_rows
    return total


def _attention_products(shape: ModelShape, share: DeviceShare, tokens: int) -> float:
    heads = -(-shape.spec.num_heads // share.tensor)
    return len(share.layers) * heads * (shape.key_dim + shape.value_dim) * tokens * tokens


def _host_s(share: DeviceShare, rates: DeviceRates, batch: int, on_gpu: bool) -> float:
    # What is copied for each step is in no captured graph.
    if on_gpu and not share.on_host:
        return len(share.layers) * _FUSED_KERNELS * _GRAPH_KERNEL_S + _STEP_OPERATIONS * rates.launch_s / 2
    operations = len(share.layers) * _EAGER_OPERATIONS + _STEP_OPERATIONS + batch * _REQUEST_OPERATIONS
    return operations * rates.launch_s


def _communication_s(share: DeviceShare) -> float:
    return 2 * len(share.layers) * _REDUCE_S if share.tensor > 1 else 0.0


def _copy_s(shape: ModelShape, share: DeviceShare, work: Workload, rates: DeviceRates) -> float:
    """What stays in the host's memory goes over the bus for each pass; computing waits for it."""
    if not share.on_host:
        return 0.0
    return total_bytes(shape, work.quant, work.dtype, share.on_host) / rates.host_copy_bytes_per_s


def _sum(parts: Sequence[StepTime], on_gpu: bool) -> StepTime:
    return StepTime(
        sum(part.memory_s for part in parts),
        sum(part.compute_s for part in parts),
        sum(part.host_s for part in parts),
        sum(part.communication_s for part in parts),
        on_gpu,
        sum(part.bytes_read for part in parts),
        sum(part.operations for part in parts),
    )
