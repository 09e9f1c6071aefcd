"""boto3 clients with short limits and their own sessions. Knows how to make one, not what it is asked."""

from __future__ import annotations

from typing import Any

from workbench.aws.instance import default_instance

__all__ = ["find_region", "make_client"]

_CONNECT_TIMEOUT_S = 4
_READ_TIMEOUT_S = 20
_MAX_ATTEMPTS = 3


def find_region(region: str | None = None) -> str | None:
    """`region`, else the one boto3 is set up with, else the one this instance runs in; None when nothing says."""
    if region:
        return region
    import boto3

    configured: str | None = boto3.Session().region_name
    if configured:
        return configured
    identity = default_instance().identity()
    return identity.region if identity else None


def make_client(service: str, region: str | None = None, *, anonymous: bool = False, max_connections: int = 10) -> Any:
    """A boto3 client for `service` ("s3", "ec2", "pricing"). Making one uses no network.

    `anonymous` signs nothing, for public buckets. `max_connections` is how many requests may run at once.
    Raises botocore's NoRegionError where a region is needed and nothing says which.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS},
        max_pool_connections=max_connections,
        signature_version=UNSIGNED if anonymous else None,
    )
    # A session of its own: boto3's shared default one is not safe to use from several threads.
    return boto3.Session().client(service, region_name=find_region(region), config=config)
