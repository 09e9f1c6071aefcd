"""The code of docs/aws.md, run from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import boto3
import pytest

from workbench import aws as package
from workbench.aws import InstanceCatalogue

_PAGE = (Path(__file__).parents[2] / "docs" / "aws.md").read_text("utf-8")


def test_the_page_runs(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    boto3.client("s3").create_bucket(Bucket="my-bucket")
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "tokens.jsonl").write_text("{}\n")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", _PAGE, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/aws.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "no bf16 units" in printed and "USD per million tokens" in printed
    assert "switched off by AWS_EC2_METADATA_DISABLED" in printed
    assert (tmp_path / "copy-of-run-1" / "tokens.jsonl").read_text() == "{}\n"
    assert (tmp_path / "user-data.sh").read_text().startswith("#!/bin/bash")


def test_the_page_names_every_family():
    families = {row.family for row in InstanceCatalogue.shipped().list()}
    words = set(re.findall(r"[a-z]+\d*[a-z]*", _PAGE))
    missing = {family for family in families if family.partition("-")[0] not in words}
    assert {re.sub(r"\d.*", "", family) for family in missing} <= {"inf", "trn"}


def test_public_names_are_there():
    assert sorted(package.__all__) == package.__all__
    assert all(hasattr(package, name) for name in package.__all__)
