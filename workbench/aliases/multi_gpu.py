"""The documented import path of the names for several GPUs."""

from workbench.parallel import GPUConfig, LoadBalancer, MultiGPUManager, ParallelismStrategy

__all__ = ["GPUConfig", "LoadBalancer", "MultiGPUManager", "ParallelismStrategy"]
