"""How fast an instance can generate, from bytes to move and bandwidths. An estimate; measuring is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass, fields

from workbench.aws.catalogue import InstanceType, Interconnect
from workbench.aws.serving_plan import ServingPlan
from workbench.errors import ConfigError

__all__ = ["Assumptions", "DecodeEstimate", "Layout", "NoLayout", "choose_layout", "estimate_decode"]

_GIB = 1024**3


@dataclass(frozen=True)
class Assumptions:
    """What the data sheets do not say. Shown with every result, and to be replaced by measurements.

    Attributes:
        bandwidth_efficiency: share of a GPU's peak bandwidth that decode reaches. Engines with captured graphs reach
            0.6-0.75 at 16 bits on A100 to H200 and less with small or 4-bit models.
        compute_efficiency: share of peak arithmetic that large batches reach; about 0.45-0.55 on H100.
        memory_share: share of the memory EC2 states that weights and cache may take: the engine takes 0.9 of what the
            driver shows, which is 0.91-0.99 of that.
        workspace_bytes: a GPU's memory for activations, graphs and the CUDA context.
        nvlink_reduce_s, pcie_reduce_s: time of one small all-reduce over all GPUs of a split; there are two a layer.
        pcie_gb_s: what an all-reduce moves between GPUs without NVLink, in 10^9 bytes a second.
    """

    bandwidth_efficiency: float = 0.6
    compute_efficiency: float = 0.5
    memory_share: float = 0.85
    workspace_bytes: int = _GIB
    nvlink_reduce_s: float = 15e-6
    pcie_reduce_s: float = 50e-6
    pcie_gb_s: float = 8.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_share = field.name in ("bandwidth_efficiency", "compute_efficiency", "memory_share")
            if not isinstance(value, int | float) or value < 0 or (is_share and not 0 < value <= 1):
                raise ConfigError(
                    f"{field.name}={value!r}: must be {'above 0 and at most 1' if is_share else '0 or more'}"
                )
        if self.pcie_gb_s == 0:
            raise ConfigError("pcie_gb_s=0: must be above 0")


@dataclass(frozen=True)
class Layout:
    """How a plan lies on an instance: `num_replicas` copies of the model, each over `tensor_parallel_size` GPUs.

    `max_requests` is how many requests of the plan's context the caches hold together.
    """

    tensor_parallel_size: int
    num_replicas: int
    requests_per_replica: int
    max_requests: int
    estimate: DecodeEstimate


@dataclass(frozen=True)
class NoLayout:
    """Why a plan does not fit, in words."""

    reason: str


@dataclass(frozen=True)
class DecodeEstimate:
    """One decode step of one replica, in seconds, by what takes the time. Unknown parts are 0."""

    bandwidth_s: float
    compute_s: float
    communication_s: float

    @property
    def step_s(self) -> float:
        """Reading and computing overlap; talking to the other GPUs does not."""
        return max(self.bandwidth_s, self.compute_s) + self.communication_s

    @property
    def limited_by(self) -> str:
        """ "memory bandwidth", "arithmetic" or "communication between GPUs"."""
        parts = {
            "memory bandwidth": self.bandwidth_s,
            "arithmetic": self.compute_s,
            "communication between GPUs": self.communication_s,
        }
        return max(parts, key=lambda name: parts[name])


def choose_layout(
    row: InstanceType,
    plan: ServingPlan,
    assumptions: Assumptions = Assumptions(),  # noqa: B008 (frozen)
) -> Layout | NoLayout:
    """The split over the instance's GPUs that generates most; of equals, the one with the fewest GPUs a replica."""
    if row.not_runnable_reason:
        return NoLayout(row.not_runnable_reason)
    candidates = [_lay_out(row, plan, size, assumptions) for size in _split_sizes(row)]
    layouts = [candidate for candidate in candidates if isinstance(candidate, Layout)]
    if not layouts:
        # The widest split is the one that came nearest.
        return next(candidate for candidate in reversed(candidates) if isinstance(candidate, NoLayout))
    if plan.num_layers is None and row.interconnect is Interconnect.PCIE:
        # The price of a split is unknown, and over PCIe it is high: split no more than needed.
        return layouts[0]
    return max(layouts, key=lambda layout: (plan.batch_size / layout.estimate.step_s, -layout.tensor_parallel_size))


def estimate_decode(
    row: InstanceType,
    plan: ServingPlan,
    *,
    tensor_parallel_size: int,
    num_requests: int,
    assumptions: Assumptions = Assumptions(),  # noqa: B008 (frozen)
) -> DecodeEstimate:
    """One step of a replica over `tensor_parallel_size` GPUs that serves `num_requests` at their full context."""
    gpu = row.gpu
    assert gpu is not None
    kv_bytes = num_requests * plan.kv_bytes_per_request * _kv_share(plan, tensor_parallel_size)
    bytes_per_gpu = plan.weight_bytes / tensor_parallel_size + kv_bytes
    bandwidth = gpu.bandwidth_gb_s * 1e9 * row.gpu_fraction * assumptions.bandwidth_efficiency
    compute_s = 0.0
    if plan.num_parameters and gpu.tflops_16bit:
        operations = 2 * plan.num_parameters * num_requests / tensor_parallel_size
        compute_s = operations / (gpu.tflops_16bit * 1e12 * row.gpu_fraction * assumptions.compute_efficiency)
    communication_s = _communication_s(row, plan, tensor_parallel_size, num_requests, assumptions)
    return DecodeEstimate(bytes_per_gpu / bandwidth, compute_s, communication_s)


def _lay_out(row: InstanceType, plan: ServingPlan, size: int, assumptions: Assumptions) -> Layout | NoLayout:
    usable_bytes = row.memory_bytes_per_gpu * assumptions.memory_share - assumptions.workspace_bytes
    left_bytes = usable_bytes - plan.weight_bytes / size
    per_request_bytes = plan.kv_bytes_per_request * _kv_share(plan, size)
    room = int(left_bytes // per_request_bytes) if left_bytes > 0 else 0
    if room < 1:
        return NoLayout(_too_big(row, plan, size, usable_bytes))
    num_replicas = min(row.gpu_count // size, plan.batch_size)
    per_replica = -(-plan.batch_size // num_replicas)
    if per_replica > room:
        held = room * (row.gpu_count // size)
        return NoLayout(f"the caches hold {held} requests of {plan.context_tokens} tokens, not {plan.batch_size}")
    estimate = estimate_decode(row, plan, tensor_parallel_size=size, num_requests=per_replica, assumptions=assumptions)
    return Layout(size, num_replicas, per_replica, room * (row.gpu_count // size), estimate)


def _split_sizes(row: InstanceType) -> list[int]:
    return [size for size in (1, 2, 4, 8, 16) if size <= row.gpu_count and row.gpu_count % size == 0]


def _kv_share(plan: ServingPlan, tensor_parallel_size: int) -> float:
    """Share of the cache that each GPU of a split keeps; not less than one KV head."""
    return 1 / min(tensor_parallel_size, plan.num_kv_heads or tensor_parallel_size)


def _communication_s(
    row: InstanceType, plan: ServingPlan, size: int, num_requests: int, assumptions: Assumptions
) -> float:
    if size == 1 or plan.num_layers is None:
        return 0.0
    nvlink_gb_s = row.gpu.nvlink_gb_s if row.interconnect is Interconnect.NVLINK and row.gpu is not None else None
    reduce_s = assumptions.nvlink_reduce_s if nvlink_gb_s else assumptions.pcie_reduce_s
    # A ring moves almost twice the vector out of each GPU; NVLink's figure counts both directions.
    link_gb_s = nvlink_gb_s / 2 if nvlink_gb_s else assumptions.pcie_gb_s
    vector_bytes = 2 * num_requests * (plan.hidden_size or 0)
    transfer_s = 2 * vector_bytes * (size - 1) / size / (link_gb_s * 1e9)
    return 2 * plan.num_layers * (reduce_s + transfer_s)


def _too_big(row: InstanceType, plan: ServingPlan, size: int, usable_bytes: float) -> str:
    needed = plan.weight_bytes / size + plan.kv_bytes_per_request * _kv_share(plan, size)
    split = f"split over {size} GPUs it" if size > 1 else "it"
    return (
        f"{split} needs {needed / _GIB:.1f} GiB a GPU for weights and one request; "
        f"{max(usable_bytes, 0) / _GIB:.1f} GiB can be used"
    )
