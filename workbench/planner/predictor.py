"""A planned model's speed at any load, before and after what earlier runs taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.planner.calibration import Calibration
from workbench.planner.layout import DeviceShare
from workbench.planner.memory import Workload
from workbench.planner.model_shape import ModelShape
from workbench.planner.rates import DeviceRates
from workbench.planner.speed import StepTime, decode_step, prefill, turning_batch

__all__ = ["Predictor"]


@dataclass(frozen=True)
class Predictor:
    """`stages` are one rank of each stage of a replica; `device_key` and `model_class` name what is learnt of."""

    shape: ModelShape
    stages: Sequence[DeviceShare]
    work: Workload
    rates: DeviceRates
    on_gpu: bool
    device_key: str
    model_class: str
    calibration: Calibration

    def decode(self, batch: int, mean_context: float) -> StepTime:
        """One step that gives `batch` requests a token each, by arithmetic alone."""
        return decode_step(
            self.shape,
            self.stages,
            self.work,
            self.rates,
            batch=batch,
            mean_context=mean_context,
            on_gpu=self.on_gpu,
        )

    def prefill(self, tokens: int) -> StepTime:
        """A prompt of `tokens` until its first token, by arithmetic alone."""
        return prefill(self.shape, self.stages, self.work, self.rates, tokens=tokens, on_gpu=self.on_gpu)

    def decode_s(self, batch: int, mean_context: float) -> float:
        """The same as `decode(...).total_s`, corrected by earlier runs."""
        factor = self.calibration.factor("decode", self.device_key, self.model_class, batch)
        return self.decode(batch, mean_context).total_s * factor

    def prefill_s(self, tokens: int) -> float:
        """The same as `prefill(...).total_s`, corrected by earlier runs."""
        return self.prefill(tokens).total_s * self.calibration.factor(
            "prefill", self.device_key, self.model_class, tokens
        )

    def turning_batch(self, mean_context: float) -> int | None:
        """See `speed.turning_batch`."""
        return turning_batch(
            self.shape, self.stages, self.work, self.rates, mean_context=mean_context, on_gpu=self.on_gpu
        )
