"""From settled inputs to the numbers of a plan: lays the model out, adds up memory and time. Gives no advice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import psutil

from workbench.planner.calibration import Calibration
from workbench.planner.inputs import PlanInputs
from workbench.planner.layout import DeviceShare, lay_out
from workbench.planner.memory import (
    BLOCK_TOKENS,
    CONTEXT_BYTES,
    CPU_PROCESS_BYTES,
    Workload,
    device_memory,
    host_load_peak,
    kv_bytes_per_token,
    with_draft,
)
from workbench.planner.predictor import Predictor
from workbench.planner.rates import DeviceRates
from workbench.planner.result import DevicePlan, Plan, RooflinePoint, SpeedPlan
from workbench.planner.target import Target
from workbench.planner.verdict import Verdict, judge
from workbench.planner.weight_bytes import total_bytes

__all__ = ["RatesOf", "build_plan"]

# Gives the rates of a device: measured before, or assumed.
RatesOf = Callable[[Target], DeviceRates]

# The engine's own rule on a CPU when no size is asked for: at most this share of what is free.
_CPU_POOL_SHARE = 0.5
_LEAST_CONTEXT = 256


def build_plan(inputs: PlanInputs, rates_of: RatesOf, calibration: Calibration) -> Plan:
    """The plan, without advice. A context of None becomes the model's own, or the largest that fits."""
    offset = calibration.memory_offset(inputs.device_key, inputs.model_class)
    inputs = replace(inputs, overhead_offset=offset)
    notes: list[str] = []
    shares = lay_out(inputs.shape, inputs.sizes, inputs.batch, inputs.host_layers)
    if inputs.context is None:
        context = largest_context(inputs, shares)
        if context < inputs.shape.spec.max_context:
            notes.append(f"the context is cut to the {context:,} tokens that fit; the model allows more")
        inputs = replace(inputs, context=context)
    if inputs.shape.packing:
        notes.append(f"the files are quantised themselves ({inputs.shape.packing}): sizes are those of the files")
    if _num_processes(inputs) > 1:
        notes.append("the processes share the cores and the memory: each one has what the others leave")
    devices = _device_plans(inputs, shares)
    work = _workload(inputs)
    host_needed = host_load_peak(inputs.shape, work, shares[0], on_gpu=inputs.target.is_gpu)
    if _num_processes(inputs) > 1:
        # Each loads its own share; what it holds in the end is more than what passes through.
        host_needed = sum(device.needed_bytes for device in devices)
    token_bytes = kv_bytes_per_token(inputs.shape, inputs.kv_dtype)
    if inputs.draft is not None:
        draft, draft_quant = inputs.draft
        host_needed += 0 if inputs.target.is_gpu else total_bytes(draft, draft_quant, inputs.dtype)
        token_bytes += kv_bytes_per_token(draft, inputs.dtype)
        notes.append(f"weights and cache are with those of the draft model {draft.name}, speeds without its guesses")
    predictor = _predictor(inputs, shares, rates_of(inputs.target).shared_by(_num_processes(inputs)), calibration)
    host_available = available_bytes(inputs, inputs.host)
    return Plan(
        model=inputs.shape.name,
        arguments={**inputs.arguments, "context": inputs.context},
        backend_name=inputs.target.backend_name,
        dtype=inputs.dtype,
        quant=inputs.quant.name,
        kv_dtype=inputs.kv_dtype,
        context=work.context,
        batch=inputs.batch,
        max_context=inputs.shape.spec.max_context,
        num_parameters=inputs.shape.num_parameters,
        kv_bytes_per_token=token_bytes,
        devices=devices,
        host_load_bytes=host_needed,
        host_available_bytes=host_available,
        host_verdict=judge(host_needed, host_available),
        speed=_speed(inputs, predictor),
        advice=(),
        evidence=inputs.shape.evidence,
        notes=tuple(notes),
        predictor=predictor,
    )


def largest_context(inputs: PlanInputs, shares: list[DeviceShare] | None = None) -> int:
    """The most tokens a request can have so that the whole batch fits; a small context where none does."""
    shares = shares or lay_out(inputs.shape, inputs.sizes, inputs.batch, inputs.host_layers)
    longest = inputs.shape.spec.max_context
    if _context_fits(inputs, shares, longest):
        return longest
    low, high = 0, longest // BLOCK_TOKENS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _context_fits(inputs, shares, middle * BLOCK_TOKENS) else (low, middle)
    return low * BLOCK_TOKENS or min(longest, _LEAST_CONTEXT)


def available_bytes(inputs: PlanInputs, target: Target) -> int:
    """What this process may take of a device: what is free, what it has of its own already and what it gives back, on
    a GPU within the engine's share of the whole."""
    if not target.is_here:
        return int(target.total_bytes * inputs.memory_fraction) if target.is_gpu else target.free_bytes
    if not target.is_gpu:
        own = min(int(psutil.Process().memory_info().rss), CPU_PROCESS_BYTES)
        return target.free_bytes + own + inputs.reclaim_bytes
    torch = sys.modules.get("torch")
    own = CONTEXT_BYTES if torch is not None and torch.cuda.is_initialized() else 0
    used_by_others = target.total_bytes - target.free_bytes - own - inputs.reclaim_bytes
    return max(0, int(target.total_bytes * inputs.memory_fraction) - used_by_others)


def _context_fits(inputs: PlanInputs, shares: list[DeviceShare], context: int) -> bool:
    inputs = replace(inputs, context=context)
    for device, target in zip(_device_plans(inputs, shares), inputs.targets, strict=True):
        if device.verdict is Verdict.DOES_NOT_FIT:
            return False
        without_kv = device.available_bytes - (device.needed_bytes - device.parts.kv)
        if not target.is_gpu and device.parts.kv > without_kv * _CPU_POOL_SHARE:
            return False
    return True


def _num_processes(inputs: PlanInputs) -> int:
    """How many processes share the CPU; 1 on GPUs, which share nothing."""
    return 1 if inputs.target.is_gpu else len(inputs.targets)


def _device_plans(inputs: PlanInputs, shares: list[DeviceShare]) -> tuple[DevicePlan, ...]:
    """What each device needs; of several processes on the CPU each may have what the others leave."""
    devices = [_device_plan(inputs, share, target) for share, target in zip(shares, inputs.targets, strict=True)]
    if _num_processes(inputs) == 1:
        return tuple(devices)
    together = sum(device.needed_bytes for device in devices)
    verdict = judge(together, devices[0].available_bytes)
    return tuple(
        replace(device, available_bytes=device.available_bytes - (together - device.needed_bytes), verdict=verdict)
        for device in devices
    )


def _device_plan(inputs: PlanInputs, share: DeviceShare, target: Target) -> DevicePlan:
    parts = device_memory(inputs.shape, share, _workload(inputs), on_gpu=target.is_gpu)
    if inputs.draft is not None:
        parts = with_draft(parts, *inputs.draft, _workload(inputs), on_gpu=target.is_gpu)
    parts = replace(parts, overhead=max(0, parts.overhead + inputs.overhead_offset))
    available = available_bytes(inputs, target)
    verdict = judge(parts.total, available)
    return DevicePlan(target.label, target.name, parts, target.total_bytes, target.free_bytes, available, verdict)


def _workload(inputs: PlanInputs) -> Workload:
    assert inputs.context is not None
    return Workload(inputs.context, inputs.batch, inputs.quant, inputs.dtype, inputs.kv_dtype)


def _predictor(
    inputs: PlanInputs, shares: list[DeviceShare], rates: DeviceRates, calibration: Calibration
) -> Predictor:
    sizes, shape = inputs.sizes, inputs.shape
    return Predictor(
        shape=shape,
        # One rank of every stage of the first replica, which is the one with the most requests.
        stages=tuple(shares[: sizes.tensor * sizes.pipeline : sizes.tensor]),
        work=_workload(inputs),
        rates=rates,
        on_gpu=inputs.target.is_gpu,
        device_key=inputs.device_key,
        model_class=inputs.model_class,
        calibration=calibration,
    )


def _speed(inputs: PlanInputs, predictor: Predictor) -> SpeedPlan:
    prompt_tokens = min(inputs.prompt_tokens, predictor.work.context)
    batch = max(1, predictor.stages[0].batch)
    alone, batched = (predictor.decode(count, prompt_tokens) for count in (1, batch))
    prompt = predictor.prefill(prompt_tokens)
    seconds = [predictor.decode_s(count, prompt_tokens) for count in (1, batch)]
    ttft_s = predictor.prefill_s(prompt_tokens)
    points = [RooflinePoint("one request", alone.operations, alone.bytes_read, seconds[0])]
    if batch > 1:
        points.append(RooflinePoint(f"batch of {batch}", batched.operations, batched.bytes_read, seconds[1]))
    points.append(RooflinePoint(f"prompt of {prompt_tokens}", prompt.operations, prompt.bytes_read, ttft_s))
    return SpeedPlan(
        tokens_per_s=1 / seconds[0],
        batch_tokens_per_s=inputs.batch / seconds[1],
        ttft_s=ttft_s,
        prompt_tokens=prompt_tokens,
        bound=alone.bound,
        batch_bound=batched.bound,
        prefill_bound=prompt.bound,
        turning_batch=predictor.turning_batch(prompt_tokens),
        rates=predictor.rates,
        points=tuple(points),
        calibration=predictor.calibration.words(inputs.device_key, inputs.model_class),
    )
