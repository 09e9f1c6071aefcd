"""The documented questions about this EC2 instance, each with a short answer. What torch shows wins over the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from workbench.aws.catalogue import InstanceCatalogue, InstanceKind, classify_name
from workbench.aws.instance import Instance, InstanceIdentity, default_instance
from workbench.aws.observed import ObservedGPUs, compare_with_table, observe_gpus

__all__ = [
    "get_aws_gpu_info",
    "get_aws_instance_metadata",
    "get_aws_instance_type",
    "get_optimal_aws_backend",
    "is_aws_gpu_instance",
]

_GIB = 1024**3


def get_aws_instance_metadata(instance: Instance | None = None) -> dict[str, object] | None:
    """`{"available": True}` with the instance's identity, or None off EC2. Takes at most 1 s once, then nothing."""
    identity = _identity(instance)
    if identity is None:
        return None
    return {
        "available": True,
        "instance_id": identity.instance_id,
        "instance_type": identity.instance_type,
        "region": identity.region,
        "availability_zone": identity.availability_zone,
        "availability_zone_id": identity.availability_zone_id,
        "placement_group": identity.placement_group,
        "architecture": identity.architecture,
        "lifecycle": identity.lifecycle,
    }


def get_aws_instance_type(instance: Instance | None = None) -> str | None:
    """The instance type, like "g6e.xlarge", or None off EC2."""
    identity = _identity(instance)
    return identity.instance_type if identity else None


def is_aws_gpu_instance(instance: Instance | None = None) -> bool:
    """Whether this is an EC2 instance with NVIDIA or AMD GPUs; Inferentia and Trainium are not GPUs."""
    instance_type = get_aws_instance_type(instance)
    return instance_type is not None and _kind(instance_type) is InstanceKind.GPU


def get_aws_gpu_info(
    instance: Instance | None = None, *, observe: Callable[[], ObservedGPUs] = observe_gpus
) -> dict[str, object] | None:
    """`{gpu_count, gpu_type, memory_gb}` of this GPU instance, or None; `memory_gb` is of all GPUs together.

    The numbers are the table's as long as the devices agree with them, else what torch shows. None also for a type
    that the table does not have while torch shows no device. Imports torch when this is a GPU instance.
    """
    instance_type = get_aws_instance_type(instance)
    if instance_type is None or _kind(instance_type) is not InstanceKind.GPU:
        return None
    observed = observe()
    row = InstanceCatalogue.shipped().find(instance_type)
    if observed.devices and (row is None or compare_with_table(row, observed)):
        return _from_devices(observed)
    if row is None or row.gpu is None:
        return None
    return {"gpu_count": row.gpu_count, "gpu_type": row.gpu.product, "memory_gb": row.nominal_gpu_memory_gb}


def get_optimal_aws_backend(
    instance: Instance | None = None,
    *,
    prefer_gpu: bool = True,
    observe: Callable[[], ObservedGPUs] = observe_gpus,
) -> str:
    """The backend that fits this instance's hardware: "cuda", "rocm" or "cpu".

    "cpu" off EC2, without GPUs, and always with `prefer_gpu` off. Torch is asked only for GPU types that the table
    does not have. Whether the backend works here (driver, torch build) is for `workbench.backends` to say.
    """
    instance_type = get_aws_instance_type(instance) if prefer_gpu else None
    if instance_type is None or _kind(instance_type) is not InstanceKind.GPU:
        return "cpu"
    row = InstanceCatalogue.shipped().find(instance_type)
    if row is not None and row.gpu is not None:
        return row.gpu.backend_name
    return observe().backend_name or "cpu"


def _identity(instance: Instance | None) -> InstanceIdentity | None:
    return (instance or default_instance()).identity()


def _kind(instance_type: str) -> InstanceKind:
    row = InstanceCatalogue.shipped().find(instance_type)
    return row.kind if row else classify_name(instance_type)


def _from_devices(observed: ObservedGPUs) -> dict[str, object]:
    names = Counter(device.name for device in observed.devices)
    return {
        "gpu_count": len(observed.devices),
        "gpu_type": ", ".join(names),
        "memory_gb": round(sum(device.total_bytes for device in observed.devices) / _GIB),
    }
