"""Every GPU with its owners and links, from a driver of machines that are not here."""

from __future__ import annotations

import os

from backends.fake_torch import FakeNVML, Properties, cuda_build
from telemetry.nvml_machine import GIB, NVMLMachine

from workbench.backends import CPUBackend, CUDABackend, detect
from workbench.backends.nvml import NVML
from workbench.telemetry.gpu_inventory import read_gpu_inventory


def _statuses(*uuids: str):
    torch = cuda_build(*(Properties("NVIDIA H100", 80 * GIB, uuid=uuid) for uuid in uuids), free=[GIB] * len(uuids))
    return detect([CUDABackend(torch, NVML(FakeNVML({}, starts=False))), CPUBackend()])


def test_links_are_nvlinks_where_there_are_some_and_else_the_pcie_path() -> None:
    driver = NVMLMachine(3, nvlinks={0: [1] * 4, 1: [0] * 4}, paths={(0, 1): 10, (0, 2): 30, (1, 2): 50})
    inventory = read_gpu_inventory(_statuses("aaaa-0", "aaaa-1", "aaaa-2"), driver)
    assert [(link.first, link.second, link.kind, link.short) for link in inventory.links] == [
        (0, 1, "NVLink", "NV4"),
        (0, 2, "PCIe", "PHB"),
        (1, 2, "PCIe", "SYS"),
    ]
    assert driver.open_count == 0


def test_links_into_switches_join_every_pair() -> None:
    driver = NVMLMachine(3, nvlinks={gpu: ["switch"] * 18 for gpu in range(3)})
    links = read_gpu_inventory(_statuses("aaaa-0"), driver).links
    assert [link.short for link in links] == ["NV18"] * 3
    assert links[0].words == "18 NVLinks over switches"


def test_a_pair_of_which_nothing_is_told_has_no_link() -> None:
    assert read_gpu_inventory(_statuses("aaaa-0"), NVMLMachine(2)).links == ()


def test_gpus_are_matched_by_uuid_and_hidden_ones_have_no_name() -> None:
    """torch sees the driver's second GPU alone, as CUDA_VISIBLE_DEVICES=1 leaves it."""
    inventory = read_gpu_inventory(_statuses("aaaa-1"), NVMLMachine(2))
    seen, hidden = inventory.gpus
    assert (seen.name, seen.driver_index, seen.uuid) == ("cuda:0", 1, "GPU-aaaa-1")
    assert (hidden.name, hidden.driver_index, hidden.label) == (None, 0, "driver's 0")
    assert any("hidden from torch" in reason for reason in inventory.reasons)


def test_processes_are_named_once_and_the_largest_first() -> None:
    driver = NVMLMachine(1, processes={0: [(2**22 + 1, None), (os.getpid(), 5 * GIB)]})
    mine, other = read_gpu_inventory(_statuses("aaaa-0"), driver).gpus[0].processes
    assert mine.is_this_process and mine.used_bytes == 5 * GIB and mine.name
    # Of another namespace: neither the system nor the driver knows its name.
    assert (other.name, other.used_bytes, other.is_this_process) == (None, None, False)


def test_what_the_driver_does_not_tell_is_not_known_rather_than_empty() -> None:
    inventory = read_gpu_inventory(_statuses("aaaa-0"), NVMLMachine(1, tells_processes=False))
    assert inventory.gpus[0].processes is None
    assert any("read from NVIDIA's driver only" in reason for reason in inventory.reasons)


def test_a_machine_without_gpus_says_why() -> None:
    inventory = read_gpu_inventory(detect([CUDABackend(cuda_build()), CPUBackend()]), NVMLMachine(0))
    assert inventory.gpus == ()
    assert inventory.reasons[0].startswith("cuda: ")
