import subprocess
import sys

import pytest
from backends.fake_torch import GIB, Properties, cpu_build, cuda_build, hip_build

from workbench.backends import (
    CPUBackend,
    CUDABackend,
    ROCMBackend,
    detect,
    get_backend,
    require_backend,
    select_backend,
)
from workbench.backends.nvml import NVML
from workbench.errors import BackendUnavailableError, ConfigError


def on(torch):
    return [ROCMBackend(torch), CUDABackend(torch), CPUBackend()]


NVIDIA = cuda_build(Properties("NVIDIA H200"), free=[GIB])
AMD = hip_build(Properties("MI300X", gcnArchName="gfx942"), free=[GIB])


@pytest.mark.parametrize(
    ("torch", "prefer_gpu", "name", "reason"),
    [
        (NVIDIA, True, "cuda", "a GPU is preferred and cuda is available"),
        (AMD, True, "rocm", "a GPU is preferred and rocm is available"),
        (AMD, False, "cpu", "prefer_gpu is off"),
        (
            cpu_build(),
            True,
            "cpu",
            "no GPU can be used (rocm: torch was built without HIP; cuda: torch was built without CUDA)",
        ),
    ],
)
def test_selection(torch, prefer_gpu, name, reason):
    choice = select_backend(prefer_gpu, on(torch))
    assert (choice.backend.name, choice.reason) == (name, reason)


def test_nothing_to_select_from():
    with pytest.raises(BackendUnavailableError, match="cuda: torch was built without CUDA"):
        select_backend(True, [CUDABackend(cpu_build())])


def test_detect_tells_about_all_three():
    rocm, cuda, cpu = detect(on(AMD))
    assert (rocm.name, rocm.available, rocm.reason, len(rocm.devices)) == ("rocm", True, None, 1)
    assert (cuda.name, cuda.available, cuda.devices) == ("cuda", False, ())
    assert "ROCm" in cuda.reason
    assert (cpu.available, len(cpu.devices)) == (True, 1)


def test_this_machine():
    assert [status.name for status in detect()] == ["rocm", "cuda", "cpu"]
    assert all(status.available or status.reason for status in detect())


def test_unknown_names_list_the_known():
    with pytest.raises(ConfigError, match="'tpu' is not known; use one of: rocm, cuda, cpu"):
        get_backend("tpu")


def test_names_are_found_whatever_the_case():
    assert isinstance(get_backend(" CUDA "), CUDABackend)
    assert require_backend("cpu").is_available()


def test_nvml_without_a_driver_knows_nothing():
    assert NVML().free_bytes("no-such-device", GIB) is None


def test_importing_backends_loads_no_torch():
    code = "import sys, workbench.backends; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
