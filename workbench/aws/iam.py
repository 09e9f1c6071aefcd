"""IAM policies that allow what this package does on AWS and nothing else. Makes documents; attaches none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.aws.s3_url import S3Url
from workbench.errors import ConfigError

__all__ = ["PolicyNeeds", "instance_policy", "instance_trust_policy"]

_PARTITIONS = ("aws", "aws-cn", "aws-us-gov")


@dataclass(frozen=True)
class PolicyNeeds:
    """What an instance or a user of the workbench is to be allowed.

    Attributes:
        read: places in S3 that models come from.
        write: places in S3 that quantised models and run history go to.
        describe_types: check the instance table against EC2.
        prices: ask the price list and the spot price history.
        parameters: ARNs of the parameters in Systems Manager that hold API keys.
        kms_keys: ARNs of the customer keys that objects or parameters are encrypted with.
        partition: "aws", "aws-cn" or "aws-us-gov".
    """

    read: Sequence[S3Url] = ()
    write: Sequence[S3Url] = ()
    describe_types: bool = False
    prices: bool = False
    parameters: Sequence[str] = ()
    kms_keys: Sequence[str] = ()
    partition: str = "aws"

    def __post_init__(self) -> None:
        if self.partition not in _PARTITIONS:
            raise ConfigError(f"partition={self.partition!r}: must be one of {', '.join(_PARTITIONS)}")
        for field in ("parameters", "kms_keys"):
            for arn in getattr(self, field):
                if not arn.startswith(f"arn:{self.partition}:") or "*" in arn:
                    raise ConfigError(f"{field}: {arn!r} is not the ARN of one thing in the partition {self.partition}")
        for field in ("read", "write"):
            for url in getattr(self, field):
                if not url.prefix:
                    raise ConfigError(f"{field}: {url} is a whole bucket; name a prefix in it")


def instance_policy(needs: PolicyNeeds) -> dict[str, Any]:
    """The policy document. Raises ConfigError when nothing is needed."""
    statements = [
        *_reading(needs),
        *_writing(needs),
        *_asking(needs),
        *_statement("ReadApiKeys", ["ssm:GetParameter"], list(needs.parameters)),
        *_statement(
            "UseKeys", ["kms:Decrypt", *(["kms:GenerateDataKey"] if needs.write else [])], list(needs.kms_keys)
        ),
    ]
    if not statements:
        raise ConfigError("the policy would allow nothing: say what is needed")
    return {"Version": "2012-10-17", "Statement": statements}


def instance_trust_policy(partition: str = "aws") -> dict[str, Any]:
    """Who may take the role: EC2 instances."""
    service = "ec2.amazonaws.com.cn" if partition == "aws-cn" else "ec2.amazonaws.com"
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _reading(needs: PolicyNeeds) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = []
    for number, url in enumerate(needs.read, 1):
        listing = _statement(f"List{number}", ["s3:ListBucket"], [f"arn:{needs.partition}:s3:::{url.bucket}"])
        listing[0]["Condition"] = {"StringLike": {"s3:prefix": [url.prefix, f"{url.prefix}/*"]}}
        statements += listing
        statements += _statement(f"Read{number}", ["s3:GetObject"], _objects(url, needs.partition))
    return statements


def _writing(needs: PolicyNeeds) -> list[dict[str, Any]]:
    # Reading is for the checksums by which an upload skips what is there already.
    actions = ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"]
    resources = [resource for url in needs.write for resource in _objects(url, needs.partition)]
    return _statement("Write", actions, resources)


def _asking(needs: PolicyNeeds) -> list[dict[str, Any]]:
    actions = ["ec2:DescribeInstanceTypes"] if needs.describe_types else []
    actions += ["pricing:GetProducts", "ec2:DescribeSpotPriceHistory"] if needs.prices else []
    # These actions know no resources to narrow them down to.
    return _statement("Ask", actions, ["*"]) if actions else []


def _statement(name: str, actions: list[str], resources: list[str]) -> list[dict[str, Any]]:
    return [{"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources}] if resources else []


def _objects(url: S3Url, partition: str) -> list[str]:
    return [f"arn:{partition}:s3:::{url.bucket}/{url.prefix}", f"arn:{partition}:s3:::{url.bucket}/{url.prefix}/*"]
