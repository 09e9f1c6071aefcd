"""The report of this machine, on instances that agree with the table, disagree, or are none."""

from __future__ import annotations

from aws.metadata_server import identity_values, serve_metadata

from workbench.aws import Instance
from workbench.aws.imds import IMDSClient
from workbench.aws.local_hint import HintVerdict, LocalHint
from workbench.aws.observed import ObservedGPU, ObservedGPUs
from workbench.aws.report import InstanceReport, report_instance

_GIB = 1024**3


def _report(instance_type: str, *devices: ObservedGPU, **options: object) -> InstanceReport:
    observed = ObservedGPUs(devices, "cuda" if devices else None, "" if devices else "torch is built for CPUs only")
    with serve_metadata(identity_values(instance_type)) as server:
        instance = Instance(
            IMDSClient(server.endpoint), read_hint=lambda: LocalHint(HintVerdict.EC2, ""), is_disabled=lambda: False
        )
        return report_instance(instance, observe=lambda: observed, **options)


def _facts(report: InstanceReport) -> dict[str, str]:
    return {line["fact"]: line["value"] for line in report.as_table().rows}


def test_devices_as_in_the_table_make_no_difference():
    report = _report("g4dn.xlarge", ObservedGPU("Tesla T4", int(14.56 * _GIB), "sm_75"))
    assert report.differences == ()
    assert report.settings.dtype.value == "fp16"
    assert _facts(report)["torch shows"] == "Tesla T4 (14.6 GiB)"


def test_differences_are_shown_with_both_sides():
    report = _report("g5.12xlarge", *[ObservedGPU("NVIDIA L4", 80 * _GIB, "sm_89")] * 2)
    assert {each.what for each in report.differences} == {"GPU count", "architecture", "memory per GPU"}
    assert _facts(report)["difference: GPU count"] == "table 4, torch 2"
    assert "table sm_86, torch sm_89" in report._repr_html_()


def test_a_gpu_instance_without_a_working_driver_says_so():
    facts = _facts(_report("g5.xlarge"))
    assert facts["difference: GPUs"] == "table 1 x A10G, torch none (torch is built for CPUs only)"


def test_neuron_instances_are_recognised_and_said_not_to_run():
    report = _report("inf2.8xlarge")
    assert "Neuron SDK" in _facts(report)["usable"]
    assert report.differences == ()


def test_prefer_gpu_off_reaches_the_settings():
    assert _report("g5.xlarge", prefer_gpu=False).settings.backend.value == "cpu"


def test_instances_without_accelerators_have_an_identity_only():
    report = _report("m7i.large")
    assert report.row is None and report.settings is None
    assert _facts(report)["instance type"] == "m7i.large"


def test_off_ec2_the_reason_is_given():
    instance = Instance(read_hint=lambda: LocalHint(HintVerdict.NO, "the vendor is LENOVO"), is_disabled=lambda: False)
    report = report_instance(instance)
    assert "LENOVO" in str(report)
