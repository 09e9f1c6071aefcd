"""`workbench aws ...`: advice, scripts and policies on the command line."""

from __future__ import annotations

import json

import pytest

from workbench.cli import main


def run(*args: str) -> int:
    return main(["aws", *args])


def test_advice_is_sorted_by_cost(capsys: pytest.CaptureFixture) -> None:
    options = ["--context", "2048", "--batch", "8", "--tokens-per-second", "100", "--budget", "20", "--json"]
    assert run("advise", "random:smollm2-135m", *options) == 0
    advice = json.loads(capsys.readouterr().out)
    costs = [row["usd_per_million_tokens"] for row in advice["instances"]]
    assert costs == sorted(costs) and len(costs) > 3
    assert all(row["tokens_per_second"] >= 100 for row in advice["instances"])
    assert all(row["price"]["usd_per_hour"] <= 20 for row in advice["instances"])
    assert advice["plan"]["context_tokens"] == 2048 and advice["plan"]["budget_usd_per_hour"] == 20
    assert "Neuron" in advice["rejected"]["inf2.xlarge"]


def test_advice_as_a_table_and_what_is_left_out(capsys: pytest.CaptureFixture) -> None:
    assert run("advise", "random:smollm2-135m", "--region", "eu-west-1", "--spot", "--all") == 0
    printed = capsys.readouterr().out
    assert "USD per million tokens" in printed and "why not" in printed
    assert "the price of us-east-1, not of eu-west-1" in printed


def test_nothing_fits(capsys: pytest.CaptureFixture) -> None:
    assert run("advise", "random:smollm2-135m", "--budget", "0.001") == 2
    assert "of the 0.001 allowed" in capsys.readouterr().out


def test_wrong_wishes(capsys: pytest.CaptureFixture) -> None:
    assert run("advise", "random:smollm2-135m", "--context", "999999999") == 1
    assert "was trained for at most" in capsys.readouterr().err
    assert run("advise", "random:smollm2-135m", "--quant", "int3") == 1
    assert run("advise", "no-such-model-here") == 1


def test_user_data(capsys: pytest.CaptureFixture) -> None:
    options = ["--instance-type", "g6e.xlarge", "--model", "s3://bkt/m", "--region", "eu-west-1"]
    assert run("userdata", *options, "--package", "s3://bkt/w.whl", "--api-key-parameter", "/workbench/key") == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash") and "s3://bkt/m" in script and "/workbench/key" in script
    assert run("userdata", "--package", "w.whl", "--instance-type", "trn1.2xlarge") == 1
    assert "Neuron" in capsys.readouterr().err
    # The index has a stranger's package of that name: what to install must be said.
    assert run("userdata", "--instance-type", "g6e.xlarge") == 2
    assert "--package" in capsys.readouterr().err


def test_settings_of_a_type(capsys: pytest.CaptureFixture) -> None:
    assert run("instance", "g4dn.xlarge") == 0
    assert "fp16" in capsys.readouterr().out
    assert run("instance", "g4dn.xlarge", "--no-gpu") == 0
    assert "cpu" in capsys.readouterr().out


def test_this_machine_is_no_instance(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert run("instance") == 0
    assert capsys.readouterr().out


def test_policies(capsys: pytest.CaptureFixture) -> None:
    assert run("policy", "--read", "s3://bkt/models/m", "--write", "s3://bkt/history") == 0
    policy = json.loads(capsys.readouterr().out)
    assert "arn:aws:s3:::bkt/models/m/*" in json.dumps(policy) and '"*"' not in json.dumps(policy)
    assert run("policy", "--trust") == 0
    assert "ec2.amazonaws.com" in capsys.readouterr().out
    assert run("policy") == 1
