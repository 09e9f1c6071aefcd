"""Several GPUs: which are there, who takes the next request, and whole copies of a model side by side."""

from workbench.parallel.balancers import BALANCER_NAMES, Balancer, WorkerLoad, make_balancer
from workbench.parallel.config import GPUConfig, ParallelShape
from workbench.parallel.device_choice import DeviceChoice, choose_devices
from workbench.parallel.gpu_use import GPUUse
from workbench.parallel.load_balancer import LoadBalancer
from workbench.parallel.manager import MultiGPUManager
from workbench.parallel.replica import PoolStats, ReplicaDevice, ReplicaEngine, ReplicaStats
from workbench.parallel.replica_generation import ReplicaGeneration
from workbench.parallel.replica_pool import ReplicaPool
from workbench.parallel.strategy import ParallelismStrategy

__all__ = [
    "BALANCER_NAMES",
    "Balancer",
    "DeviceChoice",
    "GPUConfig",
    "GPUUse",
    "LoadBalancer",
    "MultiGPUManager",
    "ParallelShape",
    "ParallelismStrategy",
    "PoolStats",
    "ReplicaDevice",
    "ReplicaEngine",
    "ReplicaGeneration",
    "ReplicaPool",
    "ReplicaStats",
    "WorkerLoad",
    "choose_devices",
    "make_balancer",
]
