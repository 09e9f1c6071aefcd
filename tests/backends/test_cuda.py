import pytest
from backends.fake_torch import GIB, FakeNVML, Properties, cpu_build, cuda_build, hip_build

from workbench.backends import CUDABackend
from workbench.backends.nvml import NVML
from workbench.errors import BackendUnavailableError, ConfigError

H200 = Properties("NVIDIA H200", 140 * GIB, 9, 0, 132, uuid="aaaa-1")
T4 = Properties("Tesla T4", 15 * GIB, 7, 5, 40, uuid="bbbb-2")
NO_NVML = NVML(FakeNVML({}, starts=False))


def two_gpus():
    return cuda_build(H200, T4, free=[130 * GIB, 14 * GIB])


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (cpu_build(), "torch was built without CUDA"),
        (hip_build(Properties("MI300X")), "torch was built for ROCm (HIP 7.1.25), not for CUDA"),
        (
            cuda_build(start_error=RuntimeError("Found no NVIDIA driver on your system. Please check\nmore")),
            "Found no NVIDIA driver on your system. Please check",
        ),
        (cuda_build(start_error=RuntimeError("No CUDA GPUs are available")), "No CUDA GPUs are available"),
        (
            cuda_build(look_warning="CUDA initialization: The NVIDIA driver on your system is too old (found 11040)."),
            "CUDA initialization: The NVIDIA driver on your system is too old (found 11040)",
        ),
        (cuda_build(), "no device was found"),
        (
            cuda_build(H200, properties_error=RuntimeError("CUDA error: unknown error\n...")),
            "CUDA error: unknown error",
        ),
    ],
)
def test_says_why_it_cannot_be_used(probe, reason, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    backend = CUDABackend(probe, NO_NVML)
    assert backend.unavailable_reason() == reason
    assert not backend.is_available()
    assert backend.devices() == []
    assert backend.get_memory_usage() == {}
    with pytest.raises(BackendUnavailableError, match="backend 'cuda' is not available"):
        backend.memory(0)


def test_hidden_devices_are_named_as_the_reason(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reason = CUDABackend(cuda_build(start_error=RuntimeError("No CUDA GPUs are available"))).unavailable_reason()
    assert reason == "CUDA_VISIBLE_DEVICES='' hides every device (No CUDA GPUs are available)"


def test_two_gpus_without_nvml():
    backend = CUDABackend(two_gpus(), NO_NVML)
    first, second = backend.devices()
    assert (first.name, first.architecture, first.num_cores) == ("NVIDIA H200", "sm_90", 132)
    assert (first.total_bytes, first.free_bytes) == (140 * GIB, 130 * GIB)
    assert (second.index, second.architecture, second.dtypes) == (1, "sm_75", ("fp32", "fp16"))
    assert backend.default_dtype(0).dtype == "bf16"
    assert backend.default_dtype(1).dtype == "fp16"
    assert "sm_80" in backend.default_dtype(1).reason
    assert backend.torch_device(1) == "cuda:1"


def test_nvml_is_asked_by_uuid_and_starts_no_context():
    probe = two_gpus()
    library = FakeNVML({"GPU-bbbb-2": (3 * GIB, 16 * GIB), "MIG-aaaa-1": (141 * GIB, 142 * GIB)})
    first, second = CUDABackend(probe, NVML(library)).devices()
    assert second.free_bytes == 3 * GIB
    # The driver's figure is above what CUDA can use of this slice.
    assert first.free_bytes == first.total_bytes
    assert probe.cuda.contexts == []
    assert library.open_count == 0


def test_a_slice_with_the_uuid_of_the_whole_gpu_is_read_from_cuda():
    library = FakeNVML({"GPU-aaaa-1": (139 * GIB, 140 * GIB)})
    slice_of_it = Properties("NVIDIA H200 MIG 1g.18gb", 18 * GIB, uuid="aaaa-1")
    (device,) = CUDABackend(cuda_build(slice_of_it, free=[17 * GIB]), NVML(library)).devices()
    assert device.free_bytes == 17 * GIB


def test_memory_and_documented_usage():
    backend = CUDABackend(two_gpus(), NO_NVML)
    memory = backend.memory(1)
    assert (memory.total_bytes, memory.free_bytes, memory.process_bytes) == (15 * GIB, 14 * GIB, 2 * GIB)
    usage = backend.get_memory_usage()
    assert list(usage) == ["cuda:0", "cuda:1"]
    assert usage["cuda:1"] == {
        "allocated_mb": 1024,
        "reserved_mb": 2048,
        "free_mb": 14 * 1024,
        "total_mb": 15 * 1024,
        "gpu_type": "NVIDIA",
    }


def test_dtype_support_gives_a_reason():
    backend = CUDABackend(two_gpus(), NO_NVML)
    assert backend.supports_dtype("bfloat16", 0) is None
    assert backend.supports_dtype("bf16", 1) == "Tesla T4 (sm_75) does not compute in bf16; it does in fp32, fp16"
    with pytest.raises(ConfigError, match="fp64"):
        backend.supports_dtype("fp64")


@pytest.mark.parametrize("method", ["memory", "torch_device", "default_dtype", "device"])
def test_an_index_that_does_not_exist(method):
    with pytest.raises(ConfigError, match="device_index 2 does not exist: cuda has devices 0 to 1"):
        getattr(CUDABackend(two_gpus(), NO_NVML), method)(2)


def test_empty_cache_leaves_an_unused_gpu_alone():
    probe = two_gpus()
    backend = CUDABackend(probe, NO_NVML)
    backend.empty_cache()
    assert probe.cuda.emptied == 0
    backend.memory(0)
    backend.empty_cache()
    assert probe.cuda.emptied == 1
