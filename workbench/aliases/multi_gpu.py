"""The documented import path of the names for several GPUs."""

from typing import TYPE_CHECKING

from workbench.multi_gpu import MultiGPUInference, MultiGPUManager, PipelineParallelism, TensorParallelism
from workbench.parallel import GPUConfig, LoadBalancer, ParallelismStrategy

if TYPE_CHECKING:
    from workbench.distributed.parallel_linear import ParallelLinear

__all__ = [
    "GPUConfig",
    "LoadBalancer",
    "MultiGPUInference",
    "MultiGPUManager",
    "ParallelLinear",
    "ParallelismStrategy",
    "PipelineParallelism",
    "TensorParallelism",
]


def __getattr__(name: str) -> type:
    import workbench.multi_gpu

    if name == "ParallelLinear":
        return workbench.multi_gpu.ParallelLinear
    raise AttributeError(name)
