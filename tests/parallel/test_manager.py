"""The manager and the load balancer over machines with two GPUs, one, and none."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from parallel.gpu_machine import GIB, machine

from workbench.errors import ConfigError, GPUUnavailableError
from workbench.parallel import BALANCER_NAMES, GPUConfig, GPUUse, LoadBalancer, MultiGPUManager

CONFIG = GPUConfig([0, 1], "data")


def _manager(num_gpus: int = 2, config: GPUConfig = CONFIG, **settings: object) -> MultiGPUManager:
    return MultiGPUManager(config, backends=machine(num_gpus), **settings)


def test_the_documented_snippet_runs_here_without_torch() -> None:
    program = (
        "import sys\n"
        "from multi_gpu import MultiGPUManager, GPUConfig\n"
        'config = GPUConfig(gpu_ids=[0, 1], strategy="tensor_parallel")\n'
        "manager = MultiGPUManager(config)\n"
        "assert 'torch' not in sys.modules\n"
        "print(manager.num_gpus)\n"
    )
    root = Path(__file__).parents[2]
    env = {"PYTHONPATH": f"{root}:{root / 'workbench' / 'aliases'}"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_attributes_before_anything_ran() -> None:
    manager = _manager()
    assert (manager.config, manager.gpu_ids, manager.num_gpus) == (CONFIG, [0, 1], 2)
    assert manager.gpu_loads == manager.gpu_memory == {0: 0.0, 1: 0.0}
    assert [queue.qsize() for queue in manager.request_queues.values()] == [0, 0]
    assert manager.current_gpu_index == 0
    assert manager.devices == ["cuda:0", "cuda:1"]
    assert manager.get_available_gpus() == [0, 1]


@pytest.mark.parametrize("num_gpus", [0, 1])
@pytest.mark.parametrize(
    "ask",
    [
        lambda manager: manager.get_available_gpus(),
        lambda manager: manager.select_gpu(),
        lambda manager: manager.update_gpu_metrics(),
        lambda manager: manager.get_gpu_memory_usage(1),
        lambda manager: manager.devices,
        lambda manager: LoadBalancer(manager).assign_request({"prompt": "x"}),
    ],
)
def test_missing_gpus_are_told_with_what_is_there(num_gpus: int, ask) -> None:
    there = r"cuda: 0 = cuda device, 80 GiB" if num_gpus else r"cuda: none \(no driver\)"
    with pytest.raises(GPUUnavailableError, match=rf"gpu_ids=\[0, 1\].*{there}; cpu: 0 = cpu device"):
        ask(_manager(num_gpus))


def test_degrade_uses_what_is_there_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    manager = _manager(1, GPUConfig([0, 1]), degrade=True)
    with caplog.at_level(logging.WARNING):
        assert manager.get_available_gpus() == [0]
        assert [manager.select_gpu() for _ in range(2)] == [0, 0]
    assert len(caplog.messages) == 1
    assert "using [0]" in manager.degraded_reason
    assert manager.choose_devices().config.tensor_parallel_size == 1
    with pytest.raises(GPUUnavailableError, match="GPU 1 has no memory"):
        manager.get_gpu_memory_usage(1)


def test_degrade_without_any_gpu_stays_on_the_cpu() -> None:
    manager = _manager(0, degrade=True)
    choice = manager.choose_devices()
    assert (choice.backend.name, choice.gpu_ids) == ("cpu", [])
    assert "using the CPU" in manager.degraded_reason
    assert manager.get_available_gpus() == manager.devices == []
    with pytest.raises(GPUUnavailableError, match="no GPU to select"):
        manager.select_gpu()


def test_gpus_by_uuid() -> None:
    manager = _manager(2, GPUConfig(["GPU-AAAA-1", 0], "data"))
    assert manager.devices == ["cuda:1", "cuda:0"]
    with pytest.raises(GPUUnavailableError, match="'aaaa-1'"):
        _manager(2, GPUConfig([1, "aaaa-1"], "data")).get_available_gpus()


def test_memory_is_read_when_asked() -> None:
    gpu, cpu = machine(2)
    manager = MultiGPUManager(CONFIG, backends=[gpu, cpu])
    gpu.free_bytes[1] = 20 * GIB
    assert manager.gpu_memory == {0: 0.0, 1: 0.0}
    manager.update_gpu_metrics()
    assert manager.gpu_memory == {0: 0.25, 1: 0.75}
    gpu.free_bytes[0] = 80 * GIB
    assert manager.get_gpu_memory_usage(0) == 0.0
    assert manager.get_gpu_memory_usage(99) == manager.get_gpu_load(99) == 0.0
    assert {manager.select_gpu("adaptive") for _ in range(5)} == {0}


def test_unknown_balancer_is_an_error_and_nothing_hangs() -> None:
    manager = _manager()
    with pytest.raises(ConfigError, match="strategy='fastest'.*round_robin, least_loaded, adaptive, prefix_affinity"):
        manager.select_gpu("fastest")
    assert isinstance(ConfigError("x"), ValueError)
    with manager.load_balancing_lock:
        assert [manager.select_gpu() for _ in range(3)] == [0, 1, 0]
    assert manager.current_gpu_index == 1
    with pytest.raises(ConfigError, match="must be a GPUConfig"):
        MultiGPUManager({"gpu_ids": [0]})
    with pytest.raises(ConfigError, match="max_in_flight=0"):
        _manager(max_in_flight=0)


@pytest.mark.parametrize("name", BALANCER_NAMES)
def test_counts_rise_and_fall_with_requests(name: str) -> None:
    manager = _manager(config=GPUConfig([0, 1], "data", load_balancing=name), max_in_flight=20)
    balancer = LoadBalancer(manager)
    with ThreadPoolExecutor(4) as threads:
        gpu_ids = list(threads.map(balancer.assign_request, [{"prompt": "hello"}] * 40))
    assert (
        balancer.get_balancing_stats()
        == balancer.balancing_stats
        == {
            "total_requests": 40,
            "gpu_assignments": {0: 20, 1: 20},
            "gpu_loads": {0: 1.0, 1: 1.0},
            "gpu_memory": {0: 0.25, 1: 0.25},
        }
    )
    assert [a.gpu_id for a in balancer.request_history].count(0) == 20
    for gpu_id in gpu_ids:
        balancer.release(gpu_id, seconds_per_token=0.1)
    assert manager.gpu_loads == balancer.optimize_balancing() == {0: 0.0, 1: 0.0}
    assert manager.request_queues[0].empty()
    assert balancer.get_balancing_stats()["total_requests"] == 40
    with pytest.raises(ConfigError, match="no request in flight"):
        balancer.release(0)
    with pytest.raises(ConfigError, match="request_data"):
        balancer.assign_request("hello")


def test_what_a_model_does_there_counts_too() -> None:
    running = {0: GPUUse(num_in_flight=2, requests_total=5, load=0.25)}
    config = GPUConfig([0, 1], "data", load_balancing="least_loaded")
    manager = _manager(config=config, max_in_flight=4, running=lambda: running)
    balancer = LoadBalancer(manager)
    assert manager.gpu_loads == {0: 0.25, 1: 0.0}
    assert [balancer.assign_request({}) for _ in range(3)] == [1, 1, 0]
    assert manager.gpu_loads == {0: 0.5, 1: 0.5}
    assert balancer.balancing_stats["gpu_assignments"] == {0: 6, 1: 2}
    running.clear()
    assert manager.request_queues[0].qsize() == 1 and manager.gpu_loads[0] == 0.25


def test_least_loaded_sees_releases() -> None:
    balancer = LoadBalancer(_manager(config=GPUConfig([0, 1], "data", load_balancing="least_loaded")))
    assert [balancer.assign_request({}) for _ in range(4)] == [0, 1, 0, 1]
    balancer.release(1)
    balancer.release(1)
    assert [balancer.assign_request({}) for _ in range(2)] == [1, 1]
