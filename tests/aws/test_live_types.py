"""The table held against EC2's descriptions as moto recorded them, and against none."""

from __future__ import annotations

import dataclasses

import boto3
import pytest
from botocore.exceptions import ClientError

from workbench.aws import InstanceCatalogue
from workbench.aws.live_types import check_catalogue


class _Refusal:
    """An EC2 client whose account may not describe types."""

    def get_paginator(self, name: str):
        raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "not allowed"}}, name)


def test_the_shipped_table_agrees_with_ec2(aws: None):
    check = check_catalogue(client=boto3.client("ec2", "us-east-1"))
    assert check.is_live
    assert check.as_rows() == []
    assert set(check.unknown) <= {"dl1.24xlarge", "dl2q.24xlarge"}


def test_ec2_wins_and_the_difference_is_shown(aws: None):
    shipped = InstanceCatalogue.shipped()
    wrong = [
        dataclasses.replace(row, num_vcpus=3, accelerator_count=7, gpu=dataclasses.replace(row.gpu, memory_mib=9))
        if row.name == "g5.12xlarge"
        else row
        for row in shipped.list()
    ]
    check = check_catalogue(InstanceCatalogue(wrong), client=boto3.client("ec2", "us-east-1"))
    corrected = check.catalogue.get("g5.12xlarge")
    assert (corrected.num_vcpus, corrected.gpu_count, corrected.gpu.memory_mib) == (48, 4, 22888)
    assert {row["what"]: (row["table"], row["EC2"]) for row in check.as_rows()} == {
        "accelerators": ("7", "4"),
        "memory per GPU": ("9 MiB", "22888 MiB"),
        "processors": ("3", "48"),
    }


def test_types_without_a_row_are_named(aws: None):
    few = InstanceCatalogue([InstanceCatalogue.shipped().get("g5.xlarge")])
    check = check_catalogue(few, client=boto3.client("ec2", "us-east-1"))
    assert "p5.48xlarge" in check.unknown and "inf2.xlarge" in check.unknown
    assert "g5.xlarge" not in check.unknown


def test_a_refusal_leaves_the_shipped_table():
    check = check_catalogue(client=_Refusal())
    assert not check.is_live
    assert "not allowed" in check.reason
    assert check.catalogue is InstanceCatalogue.shipped()


@pytest.mark.usefixtures("no_credentials")
def test_absent_credentials_leave_the_shipped_table():
    check = check_catalogue(region="us-east-1")
    assert not check.is_live
    assert "credentials" in check.reason


@pytest.mark.usefixtures("no_credentials")
def test_an_absent_region_leaves_the_shipped_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    check = check_catalogue()
    assert not check.is_live
    assert "region" in check.reason
