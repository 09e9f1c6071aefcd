from workbench.backends import BackendStatus, CPUBackend, CUDABackend, DeviceInfo
from workbench.telemetry import ProcessorUse


def test_the_cpu_is_a_share_of_the_cores_this_process_may_use():
    probe = ProcessorUse()
    assert probe.read() == {}
    sum(i * i for i in range(1_000_000))
    (busy_percent,) = probe.read().values()
    assert 0 < busy_percent <= 100


def test_gpus_are_read_by_name():
    probe = ProcessorUse(readers={"cuda:0": lambda: 42.0})
    assert probe.read() == {"cuda:0_busy_percent": 42.0}


def test_a_gpu_that_cannot_be_asked_is_left_out():
    gpu = DeviceInfo(0, "GPU", 8, 8, ("fp16",), "sm_90", 1, "GPU-no-such")
    probe = ProcessorUse(
        [BackendStatus(CUDABackend(), True, None, (gpu,)), BackendStatus(CPUBackend(), True, None, ())]
    )
    assert probe.read() == {}
