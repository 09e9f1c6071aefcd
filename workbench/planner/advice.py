"""The smallest changes that make a plan fit: each is tried by planning it, and says what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.backends import DTYPE_NAMES
from workbench.errors import WorkbenchError
from workbench.number_text import three_digits
from workbench.parallel import ParallelShape
from workbench.planner.estimate import largest_context
from workbench.planner.inputs import PlanInputs, available_kv_dtypes, resolve_quant
from workbench.planner.report import byte_text
from workbench.planner.result import Advice, Plan
from workbench.planner.target import Target
from workbench.planner.verdict import Verdict
from workbench.planner.weight_bytes import total_bytes
from workbench.quantize import QuantizationType
from workbench.quantize.quant_type import QUANTIZED_NAMES

__all__ = ["advise"]

# Makes the plan of other inputs, under the same rates and corrections.
Build = Callable[[PlanInputs], Plan]

# Suggested contexts are whole multiples of this, and not less than this.
_CONTEXT_STEP = 256
_SPLITS = (2, 4, 8, 16)


@dataclass(frozen=True)
class _Change:
    text: str
    arguments: Mapping[str, Any]
    inputs: PlanInputs


def advise(inputs: PlanInputs, plan: Plan, build: Build, spare: tuple[Target, ...]) -> tuple[Advice, ...]:
    """What would make `plan` fit, or fit with room where it is tight; nothing for one that fits.

    `spare` are devices of the same kind that the plan does not use. Of each kind of change there is the smallest that
    is enough; two at once only where none alone is.
    """
    if plan.verdict is Verdict.FITS:
        return ()
    groups = (
        _smaller_cache(inputs),
        _shorter(inputs, plan),
        _fewer(inputs),
        _smaller_weights(inputs),
        _splits(inputs, spare),
        _in_one_process(inputs),
        _offloads(inputs),
        _on_the_cpu(inputs),
    )
    found = [advice for group in groups if (advice := _first(group, plan, build))]
    if not any("backend" not in advice.change for advice in found):
        both = _first(_both(inputs, spare), plan, build)
        found = [both, *found] if both else found
    return tuple(found)


def _smaller_cache(inputs: PlanInputs) -> Iterator[_Change]:
    if len(inputs.targets) > 1:
        # Shares of a model keep keys and values as they are computed.
        return
    for kv_dtype in available_kv_dtypes(inputs.dtype, inputs.target.backend_name)[1:]:
        if kv_dtype != inputs.kv_dtype:
            change = {"kv_dtype": kv_dtype}
            yield _Change(f"keep keys and values in {kv_dtype}", change, inputs.changed(change, kv_dtype=kv_dtype))


def _both(inputs: PlanInputs, spare: tuple[Target, ...]) -> Iterator[_Change]:
    """Smaller weights or a split, and a shorter context."""
    for change in (*_smaller_weights(inputs), *_splits(inputs, spare)):
        for shorter in _shorter(change.inputs, None):
            arguments = {**change.arguments, **shorter.arguments}
            yield _Change(f"{change.text} and {shorter.text}", arguments, shorter.inputs)


def _shorter(inputs: PlanInputs, plan: Plan | None) -> Iterator[_Change]:
    longest = inputs.context or (plan.context if plan else inputs.shape.spec.max_context)
    context = min(longest - 1, _with_room(inputs)) // _CONTEXT_STEP * _CONTEXT_STEP
    if context:
        change = {"context": context}
        yield _Change(f"a context of {context:,} tokens", change, inputs.changed(change, context=context))


def _with_room(inputs: PlanInputs) -> int:
    """The largest context that leaves a tenth of each device free."""
    roomy = tuple(replace(target, free_bytes=int(target.free_bytes * 0.9)) for target in inputs.targets)
    return largest_context(replace(inputs, targets=roomy, context=None))


def _fewer(inputs: PlanInputs) -> Iterator[_Change]:
    batch = inputs.batch // 2
    while batch:
        change = {"batch": batch}
        yield _Change(f"{batch} request{'s' if batch > 1 else ''} at once", change, inputs.changed(change, batch=batch))
        batch //= 2


def _smaller_weights(inputs: PlanInputs) -> Iterator[_Change]:
    """From the largest of those that are smaller than now to the smallest."""
    if inputs.shape.packing:
        return
    sizes = {}
    # Shares of a model are not quantised.
    for name in (*DTYPE_NAMES, *(QUANTIZED_NAMES if len(inputs.targets) == 1 else ())):
        try:
            quant, dtype = resolve_quant(name, inputs.target)
        except WorkbenchError:
            continue
        if quant.config is not None and quant.config.quantization_type is QuantizationType.GGUF:
            continue
        sizes[name] = (total_bytes(inputs.shape, quant, dtype, on_gpu=inputs.target.is_gpu), quant, dtype)
    now_bytes = total_bytes(inputs.shape, inputs.quant, inputs.dtype, on_gpu=inputs.target.is_gpu)
    for name in sorted(sizes, key=lambda name: -sizes[name][0]):
        num_bytes, quant, dtype = sizes[name]
        if num_bytes < now_bytes:
            change: dict[str, Any] = {"quant": name}
            host_layers = inputs.host_layers
            if host_layers and quant.config is not None:
                # Quantised weights stay on the device.
                change, host_layers = {**change, "cpu_offload_layers": None}, 0
            kv_dtype = dtype if inputs.kv_dtype == inputs.dtype else inputs.kv_dtype
            settled = inputs.changed(change, quant=quant, dtype=dtype, kv_dtype=kv_dtype, host_layers=host_layers)
            yield _Change(f"{name} weights", change, settled)


def _splits(inputs: PlanInputs, spare: tuple[Target, ...]) -> Iterator[_Change]:
    targets = inputs.targets + spare
    for count in _SPLITS:
        if len(inputs.targets) < count <= len(targets) and inputs.target.is_gpu:
            gpus = [int(target.label.partition(":")[2]) for target in targets[:count]]
            change: dict[str, Any] = {"gpus": gpus, "parallel": "tensor"}
            if inputs.host_layers:
                change["cpu_offload_layers"] = None
            sizes = ParallelShape(tensor=count)
            settled = inputs.changed(change, targets=targets[:count], sizes=sizes, host_layers=0)
            yield _Change(f"split over {count} GPUs", change, settled)


def _in_one_process(inputs: PlanInputs) -> Iterator[_Change]:
    if inputs.target.is_gpu or len(inputs.targets) == 1:
        return
    change = {"parallel": None}
    settled = {"targets": (inputs.host,), "sizes": ParallelShape()}
    yield _Change("one process", change, inputs.changed(change, **settled))


def _offloads(inputs: PlanInputs) -> Iterator[_Change]:
    """From one more layer in the host's memory than now to all of them."""
    if not inputs.target.is_gpu or len(inputs.targets) > 1 or inputs.quant.config is not None or inputs.shape.packing:
        return
    for count in range(inputs.host_layers + 1, inputs.shape.spec.num_layers + 1):
        # The engine's own kernels, which an 8-bit cache needs, keep everything on the device.
        change = {"cpu_offload_layers": count, **({"kv_dtype": None} if inputs.kv_dtype != inputs.dtype else {})}
        text = f"keep {count} layer{'s' if count > 1 else ''} in the host's memory"
        settled = inputs.changed(change, host_layers=count, kv_dtype=inputs.dtype)
        yield _Change(text, change, settled)


def _on_the_cpu(inputs: PlanInputs) -> Iterator[_Change]:
    if not inputs.target.is_gpu or inputs.shape.packing:
        return
    change = {"backend": "cpu", "gpus": None, "parallel": None, "kv_dtype": None, "cpu_offload_layers": None}
    name = inputs.quant.name
    try:
        quant, dtype = resolve_quant(name, inputs.host)
    except WorkbenchError:
        return
    if name != inputs.host.default_dtype:
        # Left to the workbench it would become what is best there.
        change["quant"] = name
    settled = {"targets": (inputs.host,), "sizes": ParallelShape(), "quant": quant, "dtype": dtype, "kv_dtype": dtype}
    settled["host_layers"] = 0
    yield _Change("run on the CPU", change, inputs.changed(change, **settled))


def _first(changes: Iterator[_Change], before: Plan, build: Build) -> Advice | None:
    return next((advice for change in changes if (advice := _try(change, before, build))), None)


def _try(change: _Change, before: Plan, build: Build) -> Advice | None:
    """The advice, if the change is enough: what did not fit must fit, what was tight must have room."""
    try:
        after = build(change.inputs)
    except WorkbenchError:
        return None
    is_enough = after.fits and (before.verdict is Verdict.DOES_NOT_FIT or after.verdict is Verdict.FITS)
    if not is_enough:
        return None
    return Advice(
        text=change.text,
        change=change.arguments,
        cost=_cost(before, after),
        needed_bytes=after.needed_bytes,
        margin_bytes=after.margin_bytes,
        tokens_per_s=after.speed.tokens_per_s,
        verdict=after.verdict,
    )


def _cost(before: Plan, after: Plan) -> str:
    words = [f"{byte_text(after.needed_bytes)} instead of {byte_text(before.needed_bytes)}"]
    if len(after.devices) > 1:
        words[0] += " on each"
    words.append(
        f"{three_digits(after.speed.tokens_per_s)} tokens/s instead of {three_digits(before.speed.tokens_per_s)}"
    )
    if after.quant != before.quant and after.backend_name == before.backend_name:
        words.append("answers change a little")
    return ", ".join(words)
