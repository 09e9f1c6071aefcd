"""The documented import path of the names for several GPUs."""

from workbench.multi_gpu import MultiGPUInference, PipelineParallelism, TensorParallelism
from workbench.parallel import GPUConfig, LoadBalancer, MultiGPUManager, ParallelismStrategy

__all__ = [
    "GPUConfig",
    "LoadBalancer",
    "MultiGPUInference",
    "MultiGPUManager",
    "ParallelismStrategy",
    "PipelineParallelism",
    "TensorParallelism",
]
