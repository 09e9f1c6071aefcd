import io
import json

import pytest
from backends.fake_torch import FakeNVML, Properties, cuda_build
from rich.console import Console
from telemetry.nvml_machine import GIB, NVMLMachine

from workbench.backends import CPUBackend, CUDABackend, detect
from workbench.backends.nvml import NVML
from workbench.cli import main
from workbench.cli.gpus import inventory_facts, print_inventory
from workbench.telemetry.gpu_inventory import read_gpu_inventory


@pytest.fixture
def inventory():
    torch = cuda_build(*(Properties("H100", 80 * GIB, uuid=f"aaaa-{i}") for i in range(2)), free=[GIB] * 2)
    driver = NVMLMachine(2, nvlinks={0: [1] * 2, 1: [0] * 2}, processes={1: [(2**22 + 1, 3 * 10**9)]})
    return read_gpu_inventory(detect([CUDABackend(torch, NVML(FakeNVML({}, starts=False))), CPUBackend()]), driver)


def test_people_read_memory_owners_and_links(inventory):
    out = io.StringIO()
    print_inventory(inventory, Console(file=out, markup=False, highlight=False, soft_wrap=True))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0] == "cuda:0  H100  GPU-aaaa-0"
    assert "  no process is on it" in lines
    assert f"  process {2**22 + 1} (name not told): 3.0 GB" in lines
    assert [line.split() for line in lines if line.startswith("cuda:1  NV2")] == [["cuda:1", "NV2", "-"]]
    assert "NV2: 2 NVLinks" in lines


def test_programs_read_the_same(inventory):
    facts = json.loads(json.dumps(inventory_facts(inventory)))
    assert facts["links"][0]["num_nvlinks"] == 2
    assert facts["gpus"][1]["processes"][0]["used_bytes"] == 3 * 10**9


def test_this_machine(capsys):
    assert main(["gpus", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["gpus"] or facts["reasons"]
    assert main(["gpus"]) == 0
    assert facts["gpus"] or "no GPU that can be seen" in capsys.readouterr().out
