"""The policies, taken by moto's validator of the grammar, and read for what they do not allow."""

from __future__ import annotations

import json

import boto3
import pytest

from workbench.aws.iam import PolicyNeeds, instance_policy, instance_trust_policy
from workbench.aws.s3_url import S3Url
from workbench.errors import ConfigError

_ALL = PolicyNeeds(
    read=[S3Url("models", "llama"), S3Url("other", "x/y")],
    write=[S3Url("runs", "history")],
    describe_types=True,
    prices=True,
    parameters=["arn:aws:ssm:eu-west-1:123456789012:parameter/workbench/key"],
    kms_keys=["arn:aws:kms:eu-west-1:123456789012:key/1234"],
)


def test_iam_takes_the_documents(aws: None):
    iam = boto3.client("iam")
    iam.create_role(RoleName="workbench", AssumeRolePolicyDocument=json.dumps(instance_trust_policy()))
    policy = iam.create_policy(PolicyName="workbench", PolicyDocument=json.dumps(instance_policy(_ALL)))
    iam.attach_role_policy(RoleName="workbench", PolicyArn=policy["Policy"]["Arn"])


def test_nothing_is_allowed_beyond_what_was_said():
    for statement in instance_policy(_ALL)["Statement"]:
        assert not [action for action in statement["Action"] if "*" in action]
        if "*" in statement["Resource"]:
            assert statement["Action"] == [
                "ec2:DescribeInstanceTypes",
                "pricing:GetProducts",
                "ec2:DescribeSpotPriceHistory",
            ]
    assert "s3:DeleteObject" not in json.dumps(instance_policy(_ALL))


def test_a_bucket_is_listed_below_the_prefix_only():
    listing, reading = instance_policy(PolicyNeeds(read=[S3Url("models", "llama")]))["Statement"]
    assert listing["Resource"] == ["arn:aws:s3:::models"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["llama", "llama/*"]}}
    assert reading["Resource"] == ["arn:aws:s3:::models/llama", "arn:aws:s3:::models/llama/*"]


def test_other_partitions():
    policy = json.dumps(instance_policy(PolicyNeeds(write=[S3Url("runs", "h")], partition="aws-cn")))
    assert "arn:aws-cn:s3:::runs/h/*" in policy and "arn:aws:" not in policy
    assert "amazonaws.com.cn" in json.dumps(instance_trust_policy("aws-cn"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"partition": "mars"},
        {"read": [S3Url("models")]},
        {"parameters": ["*"]},
        {"parameters": ["arn:aws:ssm:eu-west-1:123456789012:parameter/*"]},
        {"kms_keys": ["arn:aws-cn:kms:cn-north-1:123456789012:key/1"]},
    ],
)
def test_needs_that_are_empty_or_too_wide_are_refused(options: dict):
    with pytest.raises(ConfigError):
        instance_policy(PolicyNeeds(**options))
