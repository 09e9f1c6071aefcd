"""Plans a load that is about to happen, warns where it will not fit, and never stands in its way."""

from __future__ import annotations

import logging
import warnings

from workbench.backends import Backend
from workbench.engine import EngineConfig
from workbench.models import ModelFiles
from workbench.planner.comparison import LoadRecord
from workbench.planner.memory import CPU_PROCESS_BYTES
from workbench.planner.model_shape import shape_of_files
from workbench.planner.planning import plan
from workbench.planner.result import Plan
from workbench.telemetry import GPUUsage, HostUsage

__all__ = ["LoadGuard", "PlanWarning"]

_log = logging.getLogger(__name__)


class PlanWarning(UserWarning):
    """The plan says that a model will not fit. The load goes on."""


class LoadGuard:
    """Made before a load. `plan` is None where the model could not be planned; the load will say why better."""

    def __init__(
        self,
        files: ModelFiles,
        backend: Backend,
        device_index: int,
        quant: str,
        config: EngineConfig,
        draft_files: ModelFiles | None = None,
    ) -> None:
        self._backend = backend
        self._device_index = device_index
        on_cpu = backend.device_type == "cpu"
        usage = (HostUsage() if on_cpu else GPUUsage(device_index, backend=backend.name)).read_usage()
        self._before_bytes = usage.process
        try:
            self.plan: Plan | None = _plan(files, backend, device_index, quant, config, draft_files)
        # Boundary: planning is an extra, and whatever goes wrong in it must not keep a model from loading.
        except Exception as error:
            _log.debug("%s could not be planned: %s", files.name, error)
            self.plan = None

    def warn(self, stacklevel: int = 2) -> None:
        """Issue PlanWarning if the plan says no."""
        if self.plan is None or self.plan.fits:
            return
        advice = "; ".join(f"{advice.text} ({advice.cost})" for advice in self.plan.advice[:3])
        warnings.warn(
            f"{self.plan!r}, and {-self.plan.margin_bytes / 1e9:.2f} GB are missing."
            + (f" What would fit: {advice}." if advice else "")
            + " Loading goes on; check_plan=False leaves this out",
            PlanWarning,
            stacklevel=stacklevel + 1,
        )

    def loaded(
        self, *, weight_bytes: int, kv_bytes: int, here_bytes: int, elsewhere_bytes: int = 0
    ) -> LoadRecord | None:
        """The model is loaded: a record that holds its measured memory beside the plan.

        `here_bytes` is what this process has of the device now, `elsewhere_bytes` what a process of the engine's own
        has. Not counted is what the whole device has: others load and unload meanwhile.
        """
        if self.plan is None:
            return None
        record = LoadRecord(self.plan)
        measured_bytes = self._measured_bytes(here_bytes) + elsewhere_bytes
        if measured_bytes > kv_bytes:
            record.loaded(weight_bytes=weight_bytes, measured_bytes=measured_bytes - kv_bytes)
        return record

    def _measured_bytes(self, here_bytes: int) -> int:
        """What the load took here. Of what this process had on a CPU before, only libraries count: they are part of the
        plan, a user's own data are not."""
        libraries_bytes = CPU_PROCESS_BYTES if self._backend.device_type == "cpu" else 0
        return here_bytes - self._before_bytes + min(self._before_bytes, libraries_bytes)


def _plan(
    files: ModelFiles,
    backend: Backend,
    device_index: int,
    quant: str,
    config: EngineConfig,
    draft_files: ModelFiles | None,
) -> Plan:
    shape = shape_of_files(files, packed=quant == "gguf")
    context = None if config.context_length is None else min(config.context_length, shape.spec.max_context)
    batch = 1
    if config.kv_cache_tokens is not None and context is not None:
        batch = max(1, config.kv_cache_tokens // context)
    return plan(
        shape,
        backend=backend,
        gpus=None if backend.device_type == "cpu" else [device_index],
        quant=quant,
        context=context,
        batch=batch,
        kv_dtype=config.kv_dtype,
        draft_model=None if draft_files is None else shape_of_files(draft_files, packed=True),
        memory_fraction=config.memory_fraction,
    )
