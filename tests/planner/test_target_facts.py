"""What a plan knows of a GPU before torch is imported: from torch's version file and NVIDIA's driver."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from workbench.planner import target


@pytest.fixture
def installed_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Stands for an installed torch that nobody has imported, whose version file says this."""

    def install(version_file: str | None) -> None:
        folder = tmp_path / "torch"
        folder.mkdir()
        if version_file is not None:
            (folder / "version.py").write_text(version_file)
        spec = ModuleSpec("torch", None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.setattr(target.importlib.util, "find_spec", lambda name: spec)

    return install


@pytest.mark.parametrize(
    ("version_file", "build"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", "cpu"),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", "cuda"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '7.0.1'\n", "rocm"),
        (None, None),
    ],
)
def test_the_build_is_read_from_a_file(installed_torch, version_file: str | None, build: str | None) -> None:
    installed_torch(version_file)
    assert target.torch_build() == build


class _Driver(ModuleType):
    """NVML as far as a plan asks it, with these GPUs."""

    def __init__(self, *names: str) -> None:
        super().__init__("pynvml")
        self.names = names
        self.is_shut_down = False

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None:
        self.is_shut_down = True

    def nvmlDeviceGetCount(self) -> int:
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, index: int) -> str:
        return self.names[index]

    def nvmlDeviceGetMemoryInfo(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(total=80 * 2**30, free=79 * 2**30)

    def nvmlDeviceGetCudaComputeCapability(self, index: int) -> tuple[int, int]:
        return 9, 0

    def nvmlDeviceGetNumGpuCores(self, index: int) -> int:
        return 16_896


@pytest.fixture
def with_driver(monkeypatch: pytest.MonkeyPatch, installed_torch):
    def install(*names: str) -> _Driver:
        driver = _Driver(*names)
        installed_torch("cuda: Optional[str] = '12.8'\n")
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return driver

    return install


def test_equal_gpus_are_told_by_the_driver_alone(with_driver) -> None:
    driver = with_driver("NVIDIA H100", "NVIDIA H100")
    first, second = target._driver_facts("cuda")
    assert (first.index, second.index) == (0, 1)
    assert (first.name, first.total_bytes, first.free_bytes) == ("NVIDIA H100", 80 * 2**30, 79 * 2**30)
    assert "bf16" in first.dtypes and first.architecture == "sm_90"
    assert driver.is_shut_down and target._preferred_backend() == "cuda"


def test_where_only_torch_knows_the_numbering_the_driver_is_not_believed(
    with_driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_driver("NVIDIA H100", "NVIDIA T4")
    assert target._driver_facts("cuda") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert target._driver_facts("cuda") is None


def test_a_driver_that_fails_says_nothing(with_driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = with_driver("NVIDIA H100")
    monkeypatch.setattr(driver, "nvmlDeviceGetMemoryInfo", lambda index: 1 / 0)
    assert target._driver_facts("cuda") is None and driver.is_shut_down
    monkeypatch.setattr(driver, "nvmlInit", lambda: 1 / 0)
    assert target._driver_facts("cuda") is None
