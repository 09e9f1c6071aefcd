"""The documented functions on instances of many kinds, through a real metadata server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aws.metadata_server import DOCUMENT_PATH, HANGS_S, MetadataServer, identity_values, serve_metadata

from workbench import LlamaGPU
from workbench.aws import (
    Instance,
    default_instance,
    get_aws_gpu_info,
    get_aws_instance_metadata,
    get_aws_instance_type,
    get_optimal_aws_backend,
    is_aws_gpu_instance,
)
from workbench.aws.imds import IMDSClient
from workbench.aws.local_hint import HintVerdict, LocalHint
from workbench.aws.observed import ObservedGPU, ObservedGPUs

_GIB = 1024**3
_NO_DEVICES = ObservedGPUs((), None, "torch is built for CPUs only")


def _instance(server: MetadataServer, verdict: HintVerdict = HintVerdict.EC2) -> Instance:
    return Instance(
        IMDSClient(server.endpoint, budget_s=30),
        read_hint=lambda: LocalHint(verdict, "said by the test"),
        is_disabled=lambda: False,
    )


@contextmanager
def _on(instance_type: str) -> Iterator[Instance]:
    with serve_metadata(identity_values(instance_type)) as server:
        yield _instance(server)


def test_the_identity_is_read_once():
    values = identity_values("g6.xlarge", placement__availability_zone_id="euw1-az2", placement__group_name="pack")
    with serve_metadata(values) as server:
        instance = _instance(server)
        assert get_aws_instance_metadata(instance) == {
            "available": True,
            "instance_id": "i-0abc",
            "instance_type": "g6.xlarge",
            "region": "eu-west-1",
            "availability_zone": "eu-west-1b",
            "availability_zone_id": "euw1-az2",
            "placement_group": "pack",
            "architecture": "x86_64",
            "lifecycle": "on-demand",
        }
        num_requests = len(server.requests)
        assert get_aws_instance_type(instance) == "g6.xlarge"
        assert is_aws_gpu_instance(instance)
        assert len(server.requests) == num_requests
    assert instance.unavailable_reason() is None


@pytest.mark.parametrize(
    ("instance_type", "backend", "info"),
    [
        ("p3.8xlarge", "cuda", (4, "V100", 64)),
        ("p4d.24xlarge", "cuda", (8, "A100", 320)),
        ("p5.48xlarge", "cuda", (8, "H100", 640)),
        ("p5en.48xlarge", "cuda", (8, "H200", 1128)),
        ("g3.16xlarge", "cuda", (4, "M60", 32)),
        ("g4dn.2xlarge", "cuda", (1, "T4", 16)),
        ("g4dn.12xlarge", "cuda", (4, "T4", 64)),
        ("g4dn.metal", "cuda", (8, "T4", 128)),
        ("g4ad.8xlarge", "rocm", (2, "V520", 16)),
        ("g5.48xlarge", "cuda", (8, "A10G", 192)),
        ("g5g.xlarge", "cuda", (1, "T4G", 16)),
        ("g6e.12xlarge", "cuda", (4, "L40S", 192)),
        ("gr6.4xlarge", "cuda", (1, "L4", 24)),
        ("g6f.large", "cuda", (1, "L4", 3)),
        ("p6-b200.48xlarge", "cuda", (8, "B200", 1440)),
    ],
)
def test_gpu_instances_of_the_table(instance_type: str, backend: str, info: tuple[int, str, int]):
    with _on(instance_type) as instance:
        assert is_aws_gpu_instance(instance)
        assert get_optimal_aws_backend(instance) == backend
        assert get_optimal_aws_backend(instance, prefer_gpu=False) == "cpu"
        gpu_info = get_aws_gpu_info(instance, observe=lambda: _NO_DEVICES)
    assert gpu_info == dict(zip(("gpu_count", "gpu_type", "memory_gb"), info, strict=True))


@pytest.mark.parametrize("instance_type", ["m7i.large", "c8g.48xlarge", "inf2.xlarge", "trn1.32xlarge", "trn9.mega"])
def test_other_instances_have_no_gpu(instance_type: str):
    def fail() -> ObservedGPUs:
        raise AssertionError("torch is not asked on instances without GPUs")

    with _on(instance_type) as instance:
        assert get_aws_instance_type(instance) == instance_type
        assert not is_aws_gpu_instance(instance)
        assert get_aws_gpu_info(instance, observe=fail) is None
        assert get_optimal_aws_backend(instance, observe=fail) == "cpu"


def test_what_torch_shows_wins_over_the_table():
    devices = (ObservedGPU("NVIDIA A10G", 22 * _GIB, "sm_86"),) * 3
    with _on("g5.12xlarge") as instance:
        info = get_aws_gpu_info(instance, observe=lambda: ObservedGPUs(devices, "cuda"))
    assert info == {"gpu_count": 3, "gpu_type": "NVIDIA A10G", "memory_gb": 66}


def test_a_gpu_type_newer_than_the_table_is_described_by_torch():
    observed = ObservedGPUs((ObservedGPU("NVIDIA R100", 288 * _GIB, "sm_110"),), "cuda")
    with _on("p9.2xlarge") as instance:
        assert is_aws_gpu_instance(instance)
        assert get_optimal_aws_backend(instance, observe=lambda: observed) == "cuda"
        assert get_aws_gpu_info(instance, observe=lambda: observed)["gpu_type"] == "NVIDIA R100"
        assert get_aws_gpu_info(instance, observe=lambda: _NO_DEVICES) is None
        assert get_optimal_aws_backend(instance, observe=lambda: _NO_DEVICES) == "cpu"


def test_a_vendor_that_excludes_ec2_spares_the_network():
    with serve_metadata(identity_values("g5.xlarge")) as server:
        instance = _instance(server, HintVerdict.NO)
        assert get_aws_instance_type(instance) is None
        assert server.requests == []
    assert "not an EC2 instance" in instance.unavailable_reason()


def test_unknown_vendors_are_asked():
    with serve_metadata(identity_values("g5.xlarge")) as server:
        assert get_aws_instance_type(_instance(server, HintVerdict.UNKNOWN)) == "g5.xlarge"


def test_the_switch_holds_also_after_the_first_look(monkeypatch: pytest.MonkeyPatch):
    with serve_metadata(identity_values("g5.xlarge")) as server:
        client = IMDSClient(server.endpoint, budget_s=60)
        instance = Instance(client, read_hint=lambda: LocalHint(HintVerdict.EC2, ""))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert instance.identity() is None
        assert server.requests == []
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        assert instance.identity().instance_type == "g5.xlarge"
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert instance.identity() is None
        assert "AWS_EC2_METADATA_DISABLED" in instance.unavailable_reason()


@pytest.mark.parametrize(
    "document", ["<html>captive portal</html>", "[]", "{}", '{"instanceType": "; rm -rf /", "region": "eu-west-1"}']
)
def test_garbage_is_no_identity(document: str):
    with serve_metadata({DOCUMENT_PATH: document}) as server:
        instance = _instance(server)
        assert get_aws_instance_metadata(instance) is None
    assert "garbage" in instance.unavailable_reason()


def test_a_hanging_service_costs_the_budget_once_for_all_threads():
    with serve_metadata(hang=True) as server:
        instance = Instance(
            IMDSClient(server.endpoint, budget_s=0.2),
            read_hint=lambda: LocalHint(HintVerdict.EC2, ""),
            is_disabled=lambda: False,
        )
        start = time.monotonic()
        threads = [threading.Thread(target=instance.identity) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert instance.identity() is None
        elapsed_s = time.monotonic() - start
    assert 0.15 < elapsed_s < HANGS_S / 2
    assert server.requests == [("PUT", "/latest/api/token")]


def test_a_hanging_service_delays_no_start(tiny_model_folder, monkeypatch: pytest.MonkeyPatch):
    with serve_metadata(hang=True) as server:
        instance = Instance(
            IMDSClient(server.endpoint, budget_s=0.2),
            read_hint=lambda: LocalHint(HintVerdict.EC2, ""),
            is_disabled=lambda: False,
        )
        monkeypatch.setattr("workbench.aws.detection.default_instance", lambda: instance)
        with LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=True) as llm:
            assert server.requests == [], "who starts asks nothing of it"
            assert llm.get_backend_info()["aws_instance"] is False
            assert llm.get_backend_info()["aws_instance"] is False
    assert server.requests == [("PUT", "/latest/api/token")], "asked once, for the budget"


def test_values_that_do_not_come_in_time_are_left_out():
    values = identity_values("g5.xlarge")
    del values["/latest/meta-data/instance-life-cycle"]
    with serve_metadata(values) as server:
        assert _instance(server).identity().lifecycle is None


def test_there_is_one_default_instance():
    assert default_instance() is default_instance()


def test_importing_and_asking_load_neither_boto3_nor_torch():
    code = (
        "import sys, workbench.aws as aws; aws.get_aws_instance_type(); aws.get_optimal_aws_backend();"
        "sys.exit(bool({'boto3', 'botocore', 'torch', 'numpy'} & set(sys.modules)))"
    )
    environ = {"PATH": "/usr/bin", "AWS_EC2_METADATA_DISABLED": "true"}
    assert subprocess.run([sys.executable, "-c", code], env=environ, cwd=".").returncode == 0
