"""Memory by owner adds up to what the device says is in use, whatever the figures say of each other."""

import os
from types import SimpleNamespace

import psutil
import pytest

from workbench.telemetry import GPUUsage, HostUsage, ModelMemory, OwnedMemory, share_out

MIB = 1024**2


def test_every_owner_gets_its_part():
    owners = share_out(
        used_bytes=1000,
        process_bytes=800,
        weight_bytes=300,
        kv_bytes=200,
        allocated_bytes=510,
        allocated_peak_bytes=550,
        reserved_bytes=600,
    )
    assert owners.to_dict() == {
        "weights": 300, "kv": 200, "activations": 50, "slack": 50, "context": 200, "others": 200,
    }  # fmt: skip


@pytest.mark.parametrize("process", [0, 400, 800, 2000])
@pytest.mark.parametrize("reserved", [0, 300, 5000])
def test_the_sum_is_always_what_is_used(process, reserved):
    owners = share_out(
        used_bytes=1000,
        process_bytes=process,
        weight_bytes=300,
        kv_bytes=200,
        allocated_bytes=reserved,
        allocated_peak_bytes=reserved,
        reserved_bytes=reserved,
    )
    assert owners.used == 1000
    assert min(owners.to_dict().values()) >= 0


def test_the_hosts_memory_adds_up_with_real_bytes():
    ballast = bytearray(os.urandom(MIB)) * 64
    owners = OwnedMemory(HostUsage(), lambda: ModelMemory(weight_bytes=len(ballast))).owners()
    memory = psutil.virtual_memory()
    assert owners.weights == 64 * MIB
    resident = psutil.Process().memory_info().rss
    assert owners.weights + owners.context == pytest.approx(resident, rel=0.02)
    # Others come and go between the two readings.
    assert owners.used == pytest.approx(memory.total - memory.available, rel=0.1)


class FakeCuda:
    """A GPU of 80 GiB with 30 in use: 22 by this process, of which the allocator holds 21."""

    def is_initialized(self):
        return True

    def mem_get_info(self, index):
        return 50 * 1024 * MIB, 80 * 1024 * MIB

    def memory_stats(self, index):
        return {
            "reserved_bytes.all.current": 21 * 1024 * MIB,
            "reserved_bytes.all.peak": 21 * 1024 * MIB,
            "allocated_bytes.all.current": 18 * 1024 * MIB,
            "allocated_bytes.all.peak": 19 * 1024 * MIB,
        }

    def get_device_properties(self, index):
        return SimpleNamespace(uuid="aaaa")


class FakeDriver:
    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == "GPU-aaaa"
        return 1

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        others = SimpleNamespace(pid=1, usedGpuMemory=8 * 1024 * MIB)
        return [others, SimpleNamespace(pid=os.getpid(), usedGpuMemory=22 * 1024 * MIB)]


def _gib(owners):
    return {owner: round(size / 1024 / MIB, 2) for owner, size in owners.to_dict().items()}


def test_a_gpus_memory_adds_up():
    usage = GPUUsage(0, torch=SimpleNamespace(cuda=FakeCuda()), driver=FakeDriver())
    probe = OwnedMemory(usage, lambda: ModelMemory(weight_bytes=16 * 1024 * MIB, kv_bytes=2 * 1024 * MIB))
    owners = probe.owners()
    assert _gib(owners) == {"weights": 16, "kv": 2, "activations": 1, "slack": 2, "context": 1, "others": 8}
    assert owners.used == 30 * 1024 * MIB
    assert probe.read()["cuda:0_weights_bytes"] == 16 * 1024 * MIB


def test_a_driver_that_knows_no_processes_leaves_a_usual_context():
    driver = FakeDriver()
    driver.nvmlDeviceGetComputeRunningProcesses = lambda handle: []
    owners = OwnedMemory(GPUUsage(0, torch=SimpleNamespace(cuda=FakeCuda()), driver=driver), lambda: None).owners()
    assert owners.used == 30 * 1024 * MIB
    assert 0.4 < _gib(owners)["context"] < 0.6


@pytest.mark.parametrize("has_looked", [False, True])
def test_a_gpu_that_torch_has_not_started_is_not_started_by_looking(has_looked):
    cuda = FakeCuda()
    cuda.is_initialized = lambda: has_looked
    cuda.memory_stats = lambda index: {}
    cuda.mem_get_info = None
    assert OwnedMemory(GPUUsage(0, torch=SimpleNamespace(cuda=cuda)), lambda: None).owners().used == 0
