import pytest
from telemetry.nvml_machine import NVMLMachine

from widgets import GPUMap
from workbench.backends import BackendStatus, CPUBackend, CUDABackend, DeviceInfo, ROCMBackend
from workbench.errors import ConfigError
from workbench.telemetry import Sampler
from workbench.telemetry.gpu_inventory import read_gpu_inventory


class HandSampler(Sampler):
    """Beats only when the test says so."""

    def start(self):
        pass


class Readings:
    def read(self):
        return {"cuda:0_used_bytes": 30e9, "cuda:0_process_bytes": 10e9, "cuda:0_busy_percent": 55.0}


def _statuses():
    gpus = tuple(
        DeviceInfo(i, "NVIDIA H100", 80_000_000_000, 60_000_000_000, ("bf16",), "sm_90", 132, f"aaaa-{i}")
        for i in range(2)
    )
    return [
        BackendStatus(ROCMBackend(), False, "torch was built without ROCm", ()),
        BackendStatus(CUDABackend(), True, None, gpus),
        BackendStatus(CPUBackend(), True, None, (gpus[0],)),
    ]


@pytest.fixture
def sampler():
    return HandSampler([Readings()])


@pytest.fixture
def picks():
    return []


@pytest.fixture
def gpu_map(front_end, sampler, picks):
    gpu_map = GPUMap(lambda *pick: picks.append(pick), statuses=_statuses(), sampler=sampler)
    yield gpu_map
    gpu_map.close()


def test_gpus_have_names_and_memory_and_the_rest_a_reason(gpu_map):
    assert [(d["name"], d["label"], d["used_bytes"]) for d in gpu_map.devices] == [
        ("cuda:0", "NVIDIA H100", 20_000_000_000),
        ("cuda:1", "NVIDIA H100", 20_000_000_000),
    ]
    assert gpu_map.refusals == ["rocm: torch was built without ROCm"]


def test_levels_follow_the_sampler_only_while_seen(front_end, gpu_map, sampler):
    sampler.beat()
    assert gpu_map.levels == {}
    front_end.tell(gpu_map, type="visible", view="v", visible=True)
    sampler.beat()
    assert gpu_map.levels["cuda:0"] == {"used_bytes": 30e9, "process_bytes": 10e9, "busy_percent": 55.0}
    assert gpu_map.levels["cuda:1"] == {}
    front_end.tell(gpu_map, type="visible", view="v", visible=False)
    front_end.updates(gpu_map).clear()
    before = len(front_end.updates(gpu_map))
    sampler.beat()
    assert len(front_end.updates(gpu_map)) == before


def test_a_click_chooses_and_a_second_one_lets_go(front_end, gpu_map, picks):
    front_end.tell(gpu_map, type="choose", name="cuda:1")
    front_end.tell(gpu_map, type="choose", name="cuda:0")
    front_end.tell(gpu_map, type="choose", name="cuda:1")
    assert picks == [("cuda", (1,)), ("cuda", (0, 1)), ("cuda", (0,))]
    assert gpu_map.chosen == ["cuda:0"]


def test_a_gpu_that_is_not_there_is_refused_by_name(gpu_map):
    with pytest.raises(ConfigError, match="'cuda:7' is not there; there are: cuda:0, cuda:1"):
        gpu_map.choose("cuda:7")


def test_a_machine_without_gpus_says_so(front_end):
    gpu_map = GPUMap(statuses=[BackendStatus(CPUBackend(), True, None, ())])
    assert repr(gpu_map) == "GPUMap\n  GPUs  none can be used"
    gpu_map.close()
    assert front_end.opened() == front_end.closed()


def test_owners_and_links_are_the_drivers_and_follow_it(front_end, sampler):
    driver = NVMLMachine(2, nvlinks={0: [1] * 4, 1: [0] * 4}, processes={0: [(2**22 + 1, 3 * 10**9)]})
    gpu_map = GPUMap(
        statuses=_statuses(), sampler=sampler, read_inventory=lambda: read_gpu_inventory(_statuses(), driver)
    )
    assert gpu_map.links == [{"first": "cuda:0", "second": "cuda:1", "short": "NV4", "words": "4 NVLinks"}]
    assert gpu_map.owners == {"cuda:0": [f"name not told ({2**22 + 1}): 3.0 GB"], "cuda:1": []}
    front_end.tell(gpu_map, type="visible", view="v", visible=True)
    driver.processes.clear()
    sampler.beat()
    assert gpu_map.owners["cuda:0"] == []
    gpu_map.close()


def test_gpus_given_in_place_of_a_function_are_refused():
    with pytest.raises(ConfigError, match="`choose` takes GPUs"):
        GPUMap([0, 1])
