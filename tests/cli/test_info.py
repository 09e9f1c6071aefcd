import json

from backends.fake_torch import GIB, FakeNVML, Properties, cuda_build

from workbench.backends import CPUBackend, CUDABackend, ROCMBackend, detect
from workbench.backends.nvml import NVML
from workbench.cli import main
from workbench.cli.info import machine_facts


def test_json(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [backend["name"] for backend in facts["backends"]] == ["rocm", "cuda", "cpu"]
    cpu = facts["backends"][2]
    assert cpu["available"] and cpu["devices"][0]["num_cores"] >= 1
    assert cpu["devices"][0]["default_dtype"]["reason"]
    assert facts["packages"]["torch"]
    assert facts["selected"]["reason"]
    assert facts["engines"]["paged"] is None
    assert facts["engines"]["vllm"] is None or "pip install" in facts["engines"]["vllm"]


def test_text_gives_reasons_and_versions(capsys, workbench_home):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "rocm: torch was built without HIP" in out or "rocm: available" in out
    assert "cpu: available" in out
    assert "transformers" in out
    assert str(workbench_home) in out


def test_facts_of_a_gpu_machine():
    torch = cuda_build(Properties("NVIDIA H200", 140 * GIB, uuid="a"), free=[130 * GIB])
    backends = [ROCMBackend(torch), CUDABackend(torch, NVML(FakeNVML({}, starts=False))), CPUBackend()]
    facts = machine_facts(detect(backends))
    assert facts["selected"]["backend"] == "cuda"
    (device,) = facts["backends"][1]["devices"]
    assert (device["architecture"], device["num_cores"], device["default_dtype"]["dtype"]) == ("sm_90", 132, "bf16")
    json.dumps(facts)
