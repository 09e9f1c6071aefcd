"""The devices that a plan is for: those of this machine, or those of an EC2 instance type. Asks the driver, not torch,
where it can."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.aws import InstanceCatalogue
from workbench.backends import DTYPE_NAMES, Backend, CPUBackend, DeviceInfo, get_backend, select_backend
from workbench.errors import BackendUnavailableError, ConfigError, GPUUnavailableError
from workbench.parallel import GPUConfig
from workbench.parallel.device_choice import choose_devices

__all__ = ["Target", "find_targets", "host_target", "instance_targets", "spare_targets", "torch_build"]

# The driver shows this much less than the memory EC2 states for a GPU.
_DRIVER_SHARE = 0.97
# The table does not say how many; nothing here asks for a GPU's.
_UNKNOWN_CORES = 0
# What a server's system and its other processes keep of an instance's memory.
_SYSTEM_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Target:
    """One device. `label` is torch's name for it ("cpu", "cuda:0"); `is_here` is False for a machine elsewhere, whose
    memory then counts as free."""

    backend_name: str
    label: str
    name: str
    total_bytes: int
    free_bytes: int
    num_cores: int
    dtypes: tuple[str, ...]
    architecture: str | None = None
    is_here: bool = True

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.backend_name != "cpu"

    @property
    def default_dtype(self) -> str:
        """The precision that a model is loaded in when none is named: as the backends choose it."""
        if self.is_gpu:
            return "bf16" if "bf16" in self.dtypes else "fp16"
        if self.is_here:
            return CPUBackend().default_dtype().dtype
        return "bf16"


def find_targets(backend: str | Backend | None, gpu_ids: Sequence[int | str] | None) -> tuple[Target, ...]:
    """The devices named, or the one that would be chosen; GPUs by index or UUID.

    Raises ConfigError for an unknown backend, BackendUnavailableError or GPUUnavailableError that lists what is there.
    """
    name = backend.name if isinstance(backend, Backend) else backend
    if name is None and gpu_ids is None and torch_build() == "cpu":
        return (host_target(),)
    if name is None and gpu_ids is None:
        name = _preferred_backend()
    if name is not None:
        name = get_backend(name).name
    if name == "cpu":
        if gpu_ids is not None:
            raise ConfigError(f"gpus={list(gpu_ids)}: the backend is cpu, which has none; leave one of the two out")
        return (host_target(),)
    if gpu_ids is None:
        gpu_ids = [0]
    facts = _driver_facts(name) if not isinstance(backend, Backend) else None
    indexes = [i for i in gpu_ids if type(i) is int]
    if facts and len(indexes) == len(gpu_ids) and all(i < len(facts) for i in indexes):
        return tuple(_of(name or "cuda", facts[i]) for i in indexes)
    return _ask_backend(backend, name, gpu_ids)


def host_target() -> Target:
    """The CPU and the memory of this host."""
    return _of("cpu", CPUBackend().device())


def instance_targets(name: str, backend: str | Backend | None, gpus: int | None) -> tuple[Target, ...]:
    """The GPUs of an EC2 instance type, or its CPU with `backend="cpu"`.

    Raises ConfigError for a type that the table lacks or more GPUs than it has, BackendUnavailableError for one whose
    accelerators cannot run models here.
    """
    row = InstanceCatalogue.shipped().get(name)
    backend_name = backend.name if isinstance(backend, Backend) else backend
    if backend_name == "cpu":
        memory = row.host_memory_bytes
        cores = max(1, row.num_vcpus // 2)
        return (
            Target("cpu", "cpu", f"CPU of {name}", memory, memory - _SYSTEM_BYTES, cores, DTYPE_NAMES, None, False),
        )
    if row.not_runnable_reason:
        raise BackendUnavailableError(f"instance {name}: {row.not_runnable_reason}")
    assert row.gpu is not None
    if backend_name not in (None, row.gpu.backend_name):
        raise BackendUnavailableError(f"instance {name}: its GPUs are for {row.gpu.backend_name}, not {backend_name}")
    count = 1 if gpus is None else gpus
    if count > row.gpu_count:
        raise GPUUnavailableError(f"gpus={count}: instance {name} has {row.gpu_count}")
    total = int(row.memory_bytes_per_gpu * _DRIVER_SHARE)
    capability = row.gpu.compute_capability
    dtypes = DTYPE_NAMES if capability is None or capability >= (8, 0) else ("fp32", "fp16")
    kind = row.gpu.backend_name, row.gpu.name, row.gpu.architecture
    return tuple(
        Target(kind[0], f"cuda:{index}", kind[1], total, total, _UNKNOWN_CORES, dtypes, kind[2], False)
        for index in range(count)
    )


def spare_targets(used: Sequence[Target], backend: str | Backend | None, instance: str | None) -> tuple[Target, ...]:
    """Further devices of the same kind and size, in their order; () on a CPU and where the driver cannot be asked."""
    first = used[0]
    if not first.is_gpu:
        return ()
    if instance is not None:
        count = InstanceCatalogue.shipped().get(instance).gpu_count
        every = instance_targets(instance, first.backend_name, count)
    else:
        asked = backend if isinstance(backend, Backend) else None
        devices = (None if asked else _driver_facts(first.backend_name)) or (
            asked or get_backend(first.backend_name)
        ).devices()
        every = tuple(_of(first.backend_name, device) for device in devices)
    labels = {target.label for target in used}
    return tuple(target for target in every if target.label not in labels and target.name == first.name)


def torch_build() -> str | None:
    """What the installed torch was built for, "cpu", "cuda" or "rocm", read from its version file without importing
    it; None where that cannot be told."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        text = (Path(found.submodule_search_locations[0]) / "version.py").read_text("utf-8")
    except OSError:
        return None
    built = {name for name in ("cuda", "hip") if re.search(rf"^{name}\b[^=]*=\s*['\"]", text, re.MULTILINE)}
    return "rocm" if "hip" in built else "cuda" if "cuda" in built else "cpu"


def _preferred_backend() -> str:
    if torch_build() == "cuda" and _driver_facts("cuda"):
        return "cuda"
    return select_backend().backend.name


def _ask_backend(backend: str | Backend | None, name: str | None, gpu_ids: Sequence[int | str]) -> tuple[Target, ...]:
    backends = None
    if name is not None:
        chosen = backend if isinstance(backend, Backend) else get_backend(name)
        chosen.require_available()
        backends = [chosen]
    choice = choose_devices(GPUConfig(list(gpu_ids), "data"), backends=backends)
    return tuple(_of(choice.backend.name, device) for device in choice.devices.values())


def _of(backend_name: str, device: DeviceInfo) -> Target:
    is_cpu = backend_name == "cpu"
    return Target(
        backend_name,
        "cpu" if is_cpu else f"cuda:{device.index}",
        device.name,
        device.total_bytes,
        device.free_bytes,
        device.num_cores,
        device.dtypes,
        device.architecture,
    )


def _driver_facts(name: str | None) -> list[DeviceInfo] | None:
    """NVIDIA's devices by the driver alone, in torch's numbering; None where only torch can tell that numbering."""
    if name not in (None, "cuda") or torch_build() != "cuda" or os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
    # pynvml's errors share no base that can be named before it is imported.
    except Exception:
        return None
    try:
        devices = [_driver_device(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return None
    finally:
        pynvml.nvmlShutdown()
    # CUDA numbers the fastest first: with two kinds of GPU the driver's order says nothing.
    return devices if len({device.name for device in devices}) <= 1 else None


def _driver_device(pynvml: Any, index: int) -> DeviceInfo:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return DeviceInfo(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        total_bytes=memory.total,
        free_bytes=memory.free,
        dtypes=("fp32", "bf16", "fp16") if major >= 8 else ("fp32", "fp16"),
        architecture=f"sm_{major}{minor}",
        num_cores=pynvml.nvmlDeviceGetNumGpuCores(handle),
    )
