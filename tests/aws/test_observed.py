"""Devices as torch gives them, from stand-ins for the builds that are not here."""

from __future__ import annotations

from types import SimpleNamespace

from workbench.aws.observed import observe_gpus


def _torch(*, cuda: str | None = None, hip: str | None = None, devices: tuple[SimpleNamespace, ...] = ()):
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: bool(devices),
            device_count=lambda: len(devices),
            get_device_properties=lambda index: devices[index],
        ),
    )


def test_cuda_devices():
    device = SimpleNamespace(name="NVIDIA L4", total_memory=23_000_000_000, major=8, minor=9)
    observed = observe_gpus(_torch(cuda="13.0", devices=(device, device)))
    assert observed.backend_name == "cuda"
    assert [each.architecture for each in observed.devices] == ["sm_89", "sm_89"]


def test_rocm_devices():
    device = SimpleNamespace(name="AMD Radeon Pro V520", total_memory=8 * 10**9, gcnArchName="gfx1011:xnack-")
    observed = observe_gpus(_torch(hip="6.4", devices=(device,)))
    assert (observed.backend_name, observed.devices[0].architecture) == ("rocm", "gfx1011")


def test_a_build_without_gpus_and_a_gpu_build_without_devices_are_told_apart():
    assert "CPUs only" in observe_gpus(_torch()).reason
    assert "no usable GPU" in observe_gpus(_torch(cuda="13.0")).reason


def test_the_installed_torch_can_be_asked():
    observed = observe_gpus()
    assert bool(observed.devices) == (observed.backend_name is not None)
