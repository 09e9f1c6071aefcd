"""Which runner a model gets on a device, and why.

The fast ones need a GPU and Triton, or a CPU with the right instructions and a C++ compiler; the plain one runs
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workbench.backends.processor import Processor
from workbench.engine.attention import LayerShape
from workbench.engine.config import EngineLimits
from workbench.engine.native.choice import choose_cpu_runner
from workbench.engine.paged_step import KVPool
from workbench.engine.runner import ModelRunner, Runner
from workbench.engine.runner_status import RunnerStatus

__all__ = ["RunnerChoice", "choose_runner", "kernels_unavailable_reason"]


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


def choose_runner(
    module: torch.nn.Module,
    pool: KVPool,
    limits: EngineLimits,
    layers: dict[int, LayerShape],
    device: str,
    *,
    keep_module: bool = False,
    num_threads: int | None = None,
    native_kernels: bool = True,
) -> RunnerChoice:
    """The fastest runner that can run this model here. Captures the graphs of a GPU runner.

    With `keep_module` the module's weights stay where they are. `num_threads` and `native_kernels` are for a CPU.
    """
    if torch.device(device).type == "cpu":
        runner, status = choose_cpu_runner(
            module,
            pool,
            limits,
            num_threads=num_threads or torch.get_num_threads(),
            wants_native=native_kernels,
            keep_module=keep_module,
            processor=Processor(),
        )
        return RunnerChoice(runner, status)
    reason = kernels_unavailable_reason(device, layers)
    if reason is not None:
        return RunnerChoice(ModelRunner(module, pool, device), RunnerStatus(f"eager: {reason}"))
    from workbench.engine.fused_decoder import FusedDecoder, why_not
    from workbench.engine.graph_runner import GraphRunner
    from workbench.engine.module_decoder import ModuleDecoder

    obstacle = "the model makes embeddings by it too" if keep_module else why_not(module)
    if obstacle is None:
        decoder = FusedDecoder(module, pool, limits.max_context, limits.max_num_seqs)
        words = "captured graphs of fused kernels"
    else:
        decoder = ModuleDecoder(module, pool, limits.max_num_seqs)
        words = f"captured graphs of the model's own forward: {obstacle}"
    runner = GraphRunner(decoder, limits, device, num_kv_heads=max(s.num_kv_heads for s in layers.values()))
    runner.capture()
    return RunnerChoice(runner, RunnerStatus(words))
