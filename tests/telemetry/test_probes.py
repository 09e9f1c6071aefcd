import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from workbench.errors import EngineStoppedError
from workbench.telemetry import DeviceMemory, EngineRates, ProcessMemory


def test_process_memory_is_in_bytes():
    numbers = ProcessMemory(os.getpid()).read()
    assert 5e6 < numbers["process_memory_bytes"] < 1e12


def _counters(generated, prompt=0, **levels):
    levels = {"num_running": 0, "num_waiting": 0, "kv_blocks_used": 0, "kv_blocks_total": 0, **levels}
    return SimpleNamespace(generated_tokens_total=generated, prompt_tokens_total=prompt, **levels)


class Script:
    """Plays a list of readings, one a call; an exception in the list is raised."""

    def __init__(self, *steps):
        self._steps = iter(steps)

    def __call__(self):
        step = next(self._steps)
        if isinstance(step, Exception):
            raise step
        return step


def test_rates_come_from_counters_and_the_clock():
    probe = EngineRates(Script(_counters(100, 10), _counters(160, 40)), clock=Script(0.0, 2.0))
    assert probe.read()["generated_tokens_per_s"] == 0.0
    numbers = probe.read()
    assert numbers["generated_tokens_per_s"] == 30.0
    assert numbers["prompt_tokens_per_s"] == 15.0


def test_a_new_engine_starts_a_new_count():
    probe = EngineRates(Script(_counters(500), None, _counters(20), _counters(30)), clock=Script(0.0, 2.0, 3.0))
    probe.read()
    assert probe.read() == {"generated_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0}
    assert probe.read()["generated_tokens_per_s"] == 0.0
    assert probe.read()["generated_tokens_per_s"] == 10.0


def test_a_counter_that_goes_back_is_not_a_negative_rate():
    probe = EngineRates(Script(_counters(500), _counters(20)), clock=Script(0.0, 1.0))
    probe.read()
    assert probe.read()["generated_tokens_per_s"] == 0.0


def test_an_engine_that_stops_meanwhile_is_no_engine():
    probe = EngineRates(Script(EngineStoppedError("unloaded")), clock=Script())
    assert probe.read() == {"generated_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0}


def test_levels_of_the_engine():
    counters = _counters(0, num_running=3, num_waiting=2, kv_blocks_used=16, kv_blocks_total=64)
    numbers = EngineRates(Script(counters), clock=Script(0.0)).read()
    assert numbers["requests_running"] == 3.0
    assert numbers["requests_waiting"] == 2.0
    assert numbers["kv_used_fraction"] == 0.25


class Driver:
    """Two devices as NVML would show them."""

    def __init__(self):
        self.asked = []

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked.append(uuid)
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):
        self.asked.append(index)
        return index

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=1000 + handle)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        # Of another namespace, as a container sees them.
        return [SimpleNamespace(pid=0, usedGpuMemory=900)]


class DriverMissing(Driver):
    def nvmlInit(self):
        raise OSError("NVML Shared Library Not Found")


def _torch(*, started):
    cuda = SimpleNamespace(
        is_initialized=lambda: started, memory_allocated=lambda index: 700, mem_get_info=lambda index: (40, 100)
    )
    return SimpleNamespace(cuda=cuda)


@pytest.mark.parametrize(
    ("uuid", "asked", "used_bytes"),
    [(None, 0, 1000), ("ab-cd", "GPU-ab-cd", 1001), ("GPU-ab", "GPU-ab", 1001), ("MIG-ab", "MIG-ab", 1001)],
)
def test_the_device_is_found_by_uuid_where_known(monkeypatch, uuid, asked, used_bytes):
    monkeypatch.setitem(sys.modules, "torch", _torch(started=False))
    driver = Driver()
    probe = DeviceMemory(0, uuid, driver=driver)
    assert probe.read() == {"cuda:0_used_bytes": float(used_bytes)}
    probe.read()
    assert driver.asked == [asked], "the handle is looked up once"


def test_torch_adds_its_own_share_once_it_has_started_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", _torch(started=True))
    assert DeviceMemory(0, driver=Driver()).read()["cuda:0_process_bytes"] == 700.0


def test_an_engine_in_a_process_of_its_own_counts_as_this_process(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", _torch(started=False))
    engine = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    driver = Driver()
    used = {0: 100, os.getpid(): 20, engine.pid: 300}
    told = [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in used.items()]
    driver.nvmlDeviceGetComputeRunningProcesses = lambda handle: told
    probe = DeviceMemory(0, driver=driver)
    try:
        assert probe.read()["cuda:0_process_bytes"] == 320.0
        told[1].usedGpuMemory = None
        assert "cuda:0_process_bytes" not in probe.read()
    finally:
        engine.communicate()
    monkeypatch.setitem(sys.modules, "torch", _torch(started=True))
    assert probe.read()["cuda:0_process_bytes"] == 700.0


def test_without_a_driver_torch_answers_and_before_that_nobody(monkeypatch):
    probe = DeviceMemory(1, driver=DriverMissing())
    monkeypatch.setitem(sys.modules, "torch", _torch(started=False))
    assert probe.read() == {}
    assert "NVML Shared Library" in probe.driver_reason
    monkeypatch.setitem(sys.modules, "torch", _torch(started=True))
    assert probe.read() == {"cuda:1_used_bytes": 60.0, "cuda:1_process_bytes": 700.0}


def test_an_amd_device_is_never_looked_up_at_nvidia(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", _torch(started=True))
    driver = Driver()
    assert DeviceMemory(0, backend="rocm", driver=driver).read()["rocm:0_used_bytes"] == 60.0
    assert driver.asked == []
