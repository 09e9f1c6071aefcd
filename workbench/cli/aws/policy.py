"""`workbench aws policy`: the least that a role needs for what is asked, as an IAM policy. Attaches nothing."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.aws import PolicyNeeds, S3Url, instance_policy, instance_trust_policy

__all__ = ["command"]


def command(
    ctx: typer.Context,
    *,
    read: Annotated[list[str], typer.Option("--read", help="s3://bucket/prefix that models come from.")] = [],  # noqa: B006
    write: Annotated[list[str], typer.Option("--write", help="s3://bucket/prefix that results go to.")] = [],  # noqa: B006
    parameter: Annotated[list[str], typer.Option("--parameter", help="ARN of an API key's parameter.")] = [],  # noqa: B006
    kms_key: Annotated[list[str], typer.Option("--kms-key", help="ARN of an encryption key.")] = [],  # noqa: B006
    prices: Annotated[bool, typer.Option("--prices", help="Ask for prices.")] = False,
    describe_types: Annotated[bool, typer.Option("--describe-types", help="Check the instance table.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Print who may take the role instead.")] = False,
) -> None:
    if trust:
        print(json.dumps(instance_trust_policy(), indent=2))
        return
    needs = PolicyNeeds(
        read=[S3Url.parse(url) for url in read],
        write=[S3Url.parse(url) for url in write],
        parameters=parameter,
        kms_keys=kms_key,
        prices=prices,
        describe_types=describe_types,
    )
    print(json.dumps(instance_policy(needs), indent=2))
