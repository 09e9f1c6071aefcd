"""Which runner a model gets on a device, and why.

The fast ones need a GPU and Triton, or a CPU with the right instructions and a C++ compiler; the plain one runs
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workbench.backends.processor import Processor
from workbench.engine.attention import LayerShape
from workbench.engine.config import EngineLimits
from workbench.engine.model_runner import ModelRunner
from workbench.engine.native.choice import choose_cpu_runner
from workbench.engine.paged_step import KVPool
from workbench.engine.runner import Runner
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import BackendUnavailableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.engine.fused_weights import FusedWeights
    from workbench.engine.warm_up.switching_runner import SwitchingRunner

__all__ = ["RunnerChoice", "RunnerPlan", "kernels_unavailable_reason", "plan_runner"]


@dataclass(frozen=True)
class RunnerChoice:
    """A runner, and in words what it does and what kept a faster one away."""

    runner: Runner
    status: RunnerStatus


def kernels_unavailable_reason(device: str, layers: dict[int, LayerShape]) -> str | None:
    """Why the GPU's own kernels cannot be used, in words; None if they can."""
    if torch.device(device).type != "cuda":
        return "the device is a CPU"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is older than compute capability 8.0"
    if any(shape.key_dim != shape.value_dim for shape in layers.values()):
        return "keys and values differ in size"
    return None


@dataclass(frozen=True)
class RunnerPlan:
    """How a model will run on a device, decided before its KV pool is sized.

    `obstacle` keeps the GPU's kernels away, `weights` are set where all of them are fused, else `why_unfused` says
    why not. `weight_bytes` counts what the weights take now.
    """

    module: PreTrainedModel
    device: str
    num_kv_heads: int
    obstacle: str | None = None
    weights: FusedWeights | None = None
    why_unfused: str | None = None
    keep_module: bool = False

    @property
    def weight_bytes(self) -> int | None:
        return None if self.weights is None else self.weights.num_bytes

    def build(
        self,
        pool: KVPool,
        limits: EngineLimits,
        *,
        num_threads: int | None = None,
        native_kernels: bool = True,
        serve_at_once: bool = True,
    ) -> RunnerChoice:
        """The runner, which becomes a faster one while it serves unless that is to be waited for here.

        `num_threads` and `native_kernels` are for a CPU.
        """
        if torch.device(self.device).type == "cpu":
            runner, status = choose_cpu_runner(
                self.module,
                pool,
                limits,
                num_threads=num_threads or torch.get_num_threads(),
                wants_native=native_kernels,
                keep_module=self.keep_module,
                serve_at_once=serve_at_once,
                processor=Processor(),
            )
            return RunnerChoice(runner, status)
        if self.obstacle is not None:
            return RunnerChoice(ModelRunner(self.module, pool, self.device), RunnerStatus(f"eager: {self.obstacle}"))
        runner, status = self._switching(pool, limits)
        if serve_at_once:
            return RunnerChoice(runner, status)
        runner.finish()
        return RunnerChoice(runner.current, status)

    def _switching(self, pool: KVPool, limits: EngineLimits) -> tuple[SwitchingRunner, RunnerStatus]:
        """Torch's operators first, then captured graphs."""
        from workbench.engine.fused_decoder import FusedDecoder
        from workbench.engine.graph_runner import GraphRunner
        from workbench.engine.module_decoder import ModuleDecoder
        from workbench.engine.packed_module import compute_with
        from workbench.engine.warm_up.switching_runner import SwitchingRunner

        def make() -> GraphRunner:
            decoder: FusedDecoder | ModuleDecoder
            if self.weights is not None:
                decoder = FusedDecoder(self.module, pool, limits.max_context, limits.max_num_seqs, self.weights)
            else:
                decoder = ModuleDecoder(self.module, pool, limits.max_num_seqs)
            return GraphRunner(decoder, limits, self.device, self.num_kv_heads)

        def describe(runner: GraphRunner) -> str:
            decoder = runner.steps.decoder
            if not isinstance(decoder, FusedDecoder):
                return f"captured graphs of the model's own forward: {self.why_unfused}"
            return f"captured graphs of {decoder.words}"

        if self.weights is not None:
            compute_with(self.module, self.weights)
        status = RunnerStatus("torch's operators")
        plain = ModelRunner(self.module, pool, self.device)
        return SwitchingRunner(plain, status, make=make, describe=describe), status


def plan_runner(
    module: PreTrainedModel,
    layers: dict[int, LayerShape],
    device: str,
    low_bit: str | None = None,
    *,
    keep_module: bool = False,
    num_host_layers: int = 0,
) -> RunnerPlan:
    """Choose the fastest way to run a model here, and take its weights over where they are fused.

    With `keep_module` none that takes the module's weights apart. `low_bit` ("int8", "int4", "fp8") packs them on the
    way, layer by layer; the weights of `num_host_layers` come and go with each step, which no graph captures. Raises
    BackendUnavailableError with the reason if that cannot be done here.
    """
    num_kv_heads = max(shape.num_kv_heads for shape in layers.values())
    obstacle = kernels_unavailable_reason(device, layers)
    if num_host_layers:
        obstacle = f"the weights of {num_host_layers} layers stay in the host's memory"
    if obstacle is not None:
        _refuse(low_bit, obstacle, module)
        return RunnerPlan(module, device, num_kv_heads, obstacle=obstacle, keep_module=keep_module)
    from workbench.engine.fused_weights import FusedWeights, why_not
    from workbench.engine.low_bit_weight import LowBitKind

    why_unfused = "the model makes embeddings by it too" if keep_module else why_not(module)
    if why_unfused is not None:
        _refuse(low_bit, why_unfused, module)
        return RunnerPlan(module, device, num_kv_heads, why_unfused=why_unfused)
    weights = FusedWeights.take(module, None if low_bit is None else LowBitKind.parse(low_bit))
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    return RunnerPlan(module, device, num_kv_heads, weights=weights)


def _refuse(low_bit: str | None, reason: str, module: torch.nn.Module) -> None:
    """Unless its matrices were packed for torch's operators when it was loaded."""
    from workbench.engine.low_bit_method import LowBitLinear
    from workbench.quantize.packed_weight import PackedModule

    packed = [type(part) for part in module.modules() if isinstance(part, PackedModule)]
    if low_bit is not None and (not packed or LowBitLinear in packed):
        raise BackendUnavailableError(f"quant_type={low_bit!r} is not available for this model here: {reason}")
