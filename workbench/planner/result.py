"""A plan as a value: what a model would take and how fast it would be, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from workbench.planner.memory import MemoryParts
from workbench.planner.rates import DeviceRates
from workbench.planner.verdict import Verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.planner.predictor import Predictor

__all__ = ["Advice", "DevicePlan", "Plan", "RooflinePoint", "SpeedPlan"]


@dataclass(frozen=True)
class DevicePlan:
    """One device: `parts` are what is needed, `available_bytes` what this process may take of the device now."""

    label: str
    name: str
    parts: MemoryParts
    total_bytes: int
    free_bytes: int
    available_bytes: int
    verdict: Verdict

    @property
    def needed_bytes(self) -> int:
        """All parts together."""
        return self.parts.total

    @property
    def margin_bytes(self) -> int:
        """What would be left; negative where it does not fit."""
        return self.available_bytes - self.parts.total


@dataclass(frozen=True)
class RooflinePoint:
    """One step: what it computes, what it reads, and how long it takes."""

    name: str
    operations: float
    bytes_read: float
    seconds: float


@dataclass(frozen=True)
class SpeedPlan:
    """Tokens per second, seconds, and what holds each back: "memory", "compute", "host" or "communication".

    `tokens_per_s` is of one request alone, `batch_tokens_per_s` of all requests of the planned batch together, both
    behind prompts of `prompt_tokens`. `ttft_s` is the time to the first token of such a prompt on an idle engine.
    `turning_batch` is the batch from which a decode step is held back by computing (None: none up to 4,096).
    `calibration` says what earlier runs here corrected (None: nothing); `points` are the same steps for the roofline.
    """

    tokens_per_s: float
    batch_tokens_per_s: float
    ttft_s: float
    prompt_tokens: int
    bound: str
    batch_bound: str
    prefill_bound: str
    turning_batch: int | None
    rates: DeviceRates
    points: tuple[RooflinePoint, ...] = ()
    calibration: str | None = None


@dataclass(frozen=True)
class Advice:
    """A change that makes it fit. `change` holds arguments of `plan` (and, by `Plan.load_arguments`, of `LlamaGPU`) to
    set; `text` says it in words and `cost` what it costs."""

    text: str
    change: Mapping[str, Any]
    cost: str
    needed_bytes: int
    margin_bytes: int
    tokens_per_s: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "change": dict(self.change), "verdict": self.verdict.value}


@dataclass(frozen=True)
class Plan:
    """What loading `model` this way takes and gives. Made by `workbench.plan`.

    `arguments` are those it was made with, every "choose for me" settled. `host_load_bytes` is the most that this
    process takes of the host's memory while it loads, `host_available_bytes` what it may take. `max_context` is the
    model's own limit, `evidence` says where the shapes come from, `notes` what else one should know.
    """

    model: str
    arguments: Mapping[str, Any]
    backend_name: str
    dtype: str
    quant: str
    kv_dtype: str
    context: int
    batch: int
    max_context: int
    num_parameters: int
    kv_bytes_per_token: int
    devices: tuple[DevicePlan, ...]
    host_load_bytes: int
    host_available_bytes: int
    host_verdict: Verdict
    speed: SpeedPlan
    advice: tuple[Advice, ...]
    evidence: str
    notes: tuple[str, ...] = ()
    # Answers for other loads than the planned one; not part of what the plan says.
    predictor: Predictor | None = field(default=None, compare=False, repr=False)

    @property
    def verdict(self) -> Verdict:
        """The worst of the devices and the host."""
        order = (Verdict.DOES_NOT_FIT, Verdict.TIGHT, Verdict.FITS)
        verdicts = {device.verdict for device in self.devices} | {self.host_verdict}
        return next(verdict for verdict in order if verdict in verdicts)

    @property
    def fits(self) -> bool:
        """Whether it can be loaded and serve the batch; also where that is tight."""
        return self.verdict is not Verdict.DOES_NOT_FIT

    @property
    def needed_bytes(self) -> int:
        """What the fullest device needs."""
        return max(device.needed_bytes for device in self.devices)

    @property
    def margin_bytes(self) -> int:
        """What would be left on the device, or host, with the least to spare; negative where it does not fit."""
        host_margin = self.host_available_bytes - self.host_load_bytes
        return min(host_margin, *(device.margin_bytes for device in self.devices))

    @property
    def margin_fraction(self) -> float:
        """The same as a share of what is available there."""
        sizes = [(device.margin_bytes, device.available_bytes) for device in self.devices]
        sizes.append((self.host_available_bytes - self.host_load_bytes, self.host_available_bytes))
        margin, available = min(sizes)
        return margin / available if available else float("-inf") if margin < 0 else 0.0

    def load_arguments(self) -> dict[str, Any]:
        """Keywords of `LlamaGPU` that load what was planned, the cache sized for the whole batch.

        For one device; several are loaded through `MultiGPUManager` with `arguments["gpus"]`.
        """
        from workbench.engine import EngineConfig

        tokens = self.batch * -(-self.context // 16) * 16
        kv_dtype = None if self.kv_dtype == self.dtype else self.kv_dtype
        engine = EngineConfig(
            context_length=self.context,
            kv_cache_tokens=tokens,
            kv_dtype=kv_dtype,
            cpu_offload_layers=self.arguments.get("cpu_offload_layers"),
            draft_model=self.arguments.get("draft_model"),
        )
        arguments = {"model_path": self.model, "backend": self.backend_name, "quant_type": self.quant, "engine": engine}
        gpus = self.arguments.get("gpus")
        if gpus and isinstance(gpus[0], int):
            arguments["device_index"] = gpus[0]
        return arguments

    def roofline(self) -> go.Figure:
        """The device's roofline with this model's steps on it, as a plotly figure."""
        from workbench.planner.figure import roofline_figure

        return roofline_figure(self.speed.rates, self.dtype, self.speed.points, title=self.devices[0].name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        chosen = (field.name for field in fields(self) if field.name not in ("predictor", "devices", "advice"))
        values = {name: getattr(self, name) for name in chosen}
        values["speed"] = asdict(self.speed)
        values["arguments"] = dict(self.arguments)
        values["devices"] = [_device_dict(device) for device in self.devices]
        values["advice"] = [advice.to_dict() for advice in self.advice]
        values["host_verdict"] = self.host_verdict.value
        for name in ("fits", "needed_bytes", "margin_bytes", "margin_fraction"):
            values[name] = getattr(self, name)
        return {**values, "verdict": self.verdict.value}

    def __repr__(self) -> str:
        from workbench.planner.report import plan_line

        return plan_line(self)

    def __str__(self) -> str:
        from workbench.planner.report import plan_text

        return plan_text(self)

    def _repr_html_(self) -> str:
        from workbench.planner.report import plan_html

        return plan_html(self)


def _device_dict(device: DevicePlan) -> dict[str, Any]:
    values = {**asdict(device), "verdict": device.verdict.value}
    return {**values, "needed_bytes": device.needed_bytes, "margin_bytes": device.margin_bytes}
