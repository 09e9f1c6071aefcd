import pytest
from backends.fake_torch import GIB, Properties, cpu_build, cuda_build, hip_build

from workbench.backends import ROCMBackend

MI300X = Properties("AMD Instinct MI300X", 192 * GIB, 9, 4, 304, gcnArchName="gfx942:sramecc+:xnack-")
RX6800 = Properties("AMD Radeon RX 6800", 16 * GIB, 10, 3, 60, gcnArchName="gfx1030")


@pytest.mark.parametrize("probe", [cpu_build(), cuda_build(Properties("NVIDIA H200"))])
def test_other_builds_are_refused(probe):
    assert ROCMBackend(probe).unavailable_reason() == "torch was built without HIP"


def test_a_hip_build_with_a_driver_that_raises():
    probe = hip_build(start_error=RuntimeError("No HIP GPUs are available"))
    assert ROCMBackend(probe).unavailable_reason() == "No HIP GPUs are available"


def test_devices_carry_the_gfx_architecture():
    backend = ROCMBackend(hip_build(MI300X, RX6800, free=[190 * GIB, 15 * GIB]))
    first, second = backend.devices()
    assert (first.architecture, first.num_cores, first.free_bytes) == ("gfx942", 304, 190 * GIB)
    assert backend.default_dtype(0).dtype == "bf16"
    assert (second.architecture, backend.default_dtype(1).dtype) == ("gfx1030", "fp16")
    # HIP builds of torch call their devices cuda.
    assert backend.torch_device(1) == "cuda:1"


def test_documented_shapes():
    backend = ROCMBackend(hip_build(MI300X, free=[190 * GIB]))
    assert backend.get_memory_usage()["rocm:0"] == {
        "allocated_mb": 512,
        "reserved_mb": 1024,
        "free_mb": 190 * 1024,
        "total_mb": 192 * 1024,
        "gpu_type": "AMD",
    }
    assert backend.get_gpu_info() == {
        "rocm:0": {"name": "AMD Instinct MI300X", "total_memory": 192 * 1024, "major": 9, "minor": 4}
    }
