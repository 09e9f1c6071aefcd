"""Settings that suit an instance type, each with its reason. Decides from the table; tunes nothing by itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from workbench.aws.catalogue import GPUModel, InstanceType, Interconnect
from workbench.aws.roofline import Assumptions, Layout, NoLayout, choose_layout
from workbench.aws.serving_plan import ServingPlan
from workbench.aws.table import Table
from workbench.aws.torch_builds import torch_build_note

__all__ = ["InstanceSettings", "Setting", "recommend_settings"]

_GIB = 1024**3
_BF16_FROM = (8, 0)
_FP8_FROM = (8, 9)
# Bytes of weights that are left of 16-bit ones, scales included.
_QUANT_SHARES = {"int8": 0.53, "int4": 0.30}
_SMALL_GPU_BYTES = 18 * _GIB


@dataclass(frozen=True)
class Setting:
    """One recommended value. `value` is None where the default is right, and `reason` says why either way."""

    name: str
    value: str | int | float | None
    reason: str


@dataclass(frozen=True)
class InstanceSettings:
    """All settings for one instance type. `not_runnable_reason` is None where the accelerators can be used.

    `fits` says whether the plan fits with these settings, None without a plan.
    `backend`: "cuda", "rocm" or "cpu". `dtype`: "bf16", "fp16", or None for the CPU backend to choose.
    `attention`: "paged" (own kernels) or "sdpa". `tensor_parallel_size` GPUs work on one copy of the model, of which
    there are `num_replicas`. `quant_type`: None, "int8" or "int4". `memory_fraction`: share of a GPU for weights, cache
    and workspace.
    `max_num_seqs`: most requests in a batch, None for the engine's own choice.
    """

    instance: InstanceType
    backend: Setting
    dtype: Setting
    attention: Setting
    tensor_parallel_size: Setting
    num_replicas: Setting
    quant_type: Setting
    memory_fraction: Setting
    max_num_seqs: Setting
    not_runnable_reason: str | None
    fits: bool | None = None
    notes: tuple[str, ...] = ()

    def as_table(self) -> Table:
        """Name, value and reason of every setting."""
        settings = (
            self.backend,
            self.dtype,
            self.attention,
            self.tensor_parallel_size,
            self.num_replicas,
            self.quant_type,
            self.memory_fraction,
            self.max_num_seqs,
        )
        rows = [
            {"setting": each.name, "value": "default" if each.value is None else str(each.value), "reason": each.reason}
            for each in settings
        ]
        return Table(rows, self.notes)

    def __str__(self) -> str:
        return str(self.as_table())

    def _repr_html_(self) -> str:
        return self.as_table()._repr_html_()


def recommend_settings(
    row: InstanceType,
    plan: ServingPlan | None = None,
    *,
    prefer_gpu: bool = True,
    assumptions: Assumptions | None = None,
) -> InstanceSettings:
    """Settings for `row`. `plan` has the model's sizes at 16 bits; without it, sizes are judged by the GPU alone.

    With `prefer_gpu` off everything is for the CPU, also on a GPU instance.
    """
    if not prefer_gpu or row.gpu is None or row.not_runnable_reason:
        return _cpu_settings(row, prefer_gpu)
    assumptions = assumptions or Assumptions()
    quant_type, fitting_plan = _quant_type(row, plan, assumptions)
    tensor_parallel_size, num_replicas = _split(row, fitting_plan, assumptions)
    note = torch_build_note(row)
    return InstanceSettings(
        instance=row,
        backend=Setting("backend", row.gpu.backend_name, f"{row.gpu_count} x {row.gpu.vendor} {row.gpu.product}"),
        dtype=_dtype(row.gpu),
        attention=_attention(row.gpu),
        tensor_parallel_size=tensor_parallel_size,
        num_replicas=num_replicas,
        quant_type=quant_type,
        memory_fraction=_memory_fraction(row),
        max_num_seqs=_max_num_seqs(row, fitting_plan, assumptions),
        not_runnable_reason=None,
        fits=None if plan is None else fitting_plan is not None,
        notes=(note,) if note else (),
    )


def _cpu_settings(row: InstanceType, prefer_gpu: bool) -> InstanceSettings:
    if not prefer_gpu:
        why = "prefer_gpu is off" + (f", so the {row.gpu_count} x {row.accelerator} stay unused" if row.gpu else "")
    else:
        why = row.not_runnable_reason or "there are no GPUs"
    unused = "does not apply to the CPU"
    return InstanceSettings(
        instance=row,
        backend=Setting("backend", "cpu", why),
        dtype=Setting("dtype", None, "the CPU backend takes bf16 where the processor has it, else fp32"),
        attention=Setting("attention", "sdpa", "the only attention on the CPU"),
        tensor_parallel_size=Setting("tensor_parallel_size", 1, unused),
        num_replicas=Setting("num_replicas", 1, f"one model shares all {row.num_vcpus} vCPUs"),
        quant_type=Setting(
            "quant_type", None, "decode on a CPU is bound by memory: int8 or int4 speed it up if quality allows"
        ),
        memory_fraction=Setting("memory_fraction", None, unused),
        max_num_seqs=Setting("max_num_seqs", None, "the engine sizes the batch for the CPU"),
        not_runnable_reason=row.not_runnable_reason,
    )


def _dtype(gpu: GPUModel) -> Setting:
    capability = gpu.compute_capability
    if capability is not None and capability < _BF16_FROM:
        return Setting("dtype", "fp16", f"{gpu.product} ({gpu.architecture}) has no bf16 units; those start at sm_80")
    return Setting("dtype", "bf16", f"{gpu.product} computes bf16 at full speed, and it overflows less than fp16")


def _attention(gpu: GPUModel) -> Setting:
    capability = gpu.compute_capability
    if capability is not None and capability < _BF16_FROM:
        return Setting("attention", "sdpa", f"the paged kernels need sm_80; {gpu.product} is {gpu.architecture}")
    return Setting("attention", "paged", "paged kernels with captured graphs")


def _quant_type(
    row: InstanceType, plan: ServingPlan | None, assumptions: Assumptions
) -> tuple[Setting, ServingPlan | None]:
    """The least quantisation with which the plan fits, and the plan with those weights (None when nothing fits)."""
    if plan is None:
        return Setting(
            "quant_type", None, "16 bits are fastest to start with; say the model's size to know if they fit"
        ), None
    first = choose_layout(row, plan, assumptions)
    if not isinstance(first, NoLayout):
        return Setting("quant_type", None, f"{plan.weight_bytes / _GIB:.1f} GiB of 16-bit weights fit"), plan
    for name, share in _QUANT_SHARES.items():
        smaller = _with_weights(plan, int(plan.weight_bytes * share))
        if not isinstance(choose_layout(row, smaller, assumptions), NoLayout):
            reason = f"at 16 bits {first.reason}; {name} brings the weights to {smaller.weight_bytes / _GIB:.1f} GiB"
            if name == "int8" and row.gpu and (row.gpu.compute_capability or (0, 0)) >= _FP8_FROM:
                reason += " (fp8 has the same size and is native here)"
            return Setting("quant_type", name, reason), smaller
    return Setting("quant_type", None, f"the plan does not fit, not even at int4: at 16 bits {first.reason}"), None


def _with_weights(plan: ServingPlan, weight_bytes: int) -> ServingPlan:
    return dataclasses.replace(plan, weight_bytes=max(1, weight_bytes))


def _split(row: InstanceType, plan: ServingPlan | None, assumptions: Assumptions) -> tuple[Setting, Setting]:
    layout = choose_layout(row, plan, assumptions) if plan else None
    if layout is None or isinstance(layout, NoLayout):
        size = row.gpu_count if plan is None and row.interconnect is Interconnect.NVLINK else 1
        reason = _link_reason(row)
    else:
        size = layout.tensor_parallel_size
        reason = _split_reason(row, layout)
    num_replicas = row.gpu_count // size
    groups = "one GPU" if row.gpu_count == 1 else f"{row.gpu_count} GPUs in groups of {size}"
    return (
        Setting("tensor_parallel_size", size, reason),
        Setting("num_replicas", num_replicas, groups),
    )


def _split_reason(row: InstanceType, layout: Layout) -> str:
    if layout.tensor_parallel_size == 1:
        return _link_reason(row)
    share = layout.estimate.communication_s / layout.estimate.step_s
    cost = f"exchanges between them take {share:.0%} of a step" if share else "needed to fit, or joined by NVLink"
    return f"predicted fastest over {layout.tensor_parallel_size} GPUs ({row.interconnect.value}): {cost}"


def _link_reason(row: InstanceType) -> str:
    if row.gpu_count == 1:
        return "there is one GPU"
    if row.interconnect is Interconnect.NVLINK and row.gpu:
        return f"NVLink joins the GPUs at {row.gpu.nvlink_gb_s} GB/s each, so a split costs little"
    return "the GPUs meet over PCIe, where a split pays two slow exchanges a layer: replicas while the model fits one"


def _memory_fraction(row: InstanceType) -> Setting:
    if row.gpu_fraction < 1:
        return Setting("memory_fraction", 0.8, "a part of a shared GPU: the driver's own share weighs more")
    if row.memory_bytes_per_gpu < _SMALL_GPU_BYTES:
        return Setting("memory_fraction", 0.85, "on a small GPU the CUDA context and workspaces are a larger share")
    return Setting("memory_fraction", 0.9, "leaves a tenth to the CUDA context, libraries and other processes")


def _max_num_seqs(row: InstanceType, plan: ServingPlan | None, assumptions: Assumptions) -> Setting:
    gpu = row.gpu
    # Requests at which computing a step takes as long as reading 2-byte weights: beyond it, each gets slower.
    knee = int(gpu.tflops_16bit * 1e12 / (gpu.bandwidth_gb_s * 1e9)) if gpu and gpu.tflops_16bit else None
    layout = choose_layout(row, plan, assumptions) if plan else None
    if plan is None or layout is None or isinstance(layout, NoLayout):
        if knee is None:
            return Setting(
                "max_num_seqs", None, "the engine's own limit; this GPU's arithmetic peak is not in the table"
            )
        return Setting("max_num_seqs", _power_of_two(knee), f"beyond about {knee} requests arithmetic is the limit")
    room = max(1, layout.max_requests // (row.gpu_count // layout.tensor_parallel_size))
    if knee is not None and knee < room:
        return Setting("max_num_seqs", _power_of_two(knee), f"beyond about {knee} requests arithmetic is the limit")
    return Setting(
        "max_num_seqs", room, f"the cache of a replica holds {room} requests of {plan.context_tokens} tokens"
    )


def _power_of_two(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)
