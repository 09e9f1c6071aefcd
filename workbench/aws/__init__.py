"""EC2: what this instance is and can do, what else would fit, and S3. Importing this loads no boto3 and no torch."""

from workbench.aws.catalogue import GPUModel, InstanceCatalogue, InstanceKind, InstanceType, Interconnect
from workbench.aws.detection import (
    get_aws_gpu_info,
    get_aws_instance_metadata,
    get_aws_instance_type,
    get_optimal_aws_backend,
    is_aws_gpu_instance,
)
from workbench.aws.instance import Instance, InstanceIdentity, default_instance

__all__ = [
    "GPUModel",
    "Instance",
    "InstanceCatalogue",
    "InstanceIdentity",
    "InstanceKind",
    "InstanceType",
    "Interconnect",
    "default_instance",
    "get_aws_gpu_info",
    "get_aws_instance_metadata",
    "get_aws_instance_type",
    "get_optimal_aws_backend",
    "is_aws_gpu_instance",
]
