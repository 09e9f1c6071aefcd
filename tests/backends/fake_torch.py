"""Torch as far as a GPU backend looks at it: builds and machines that are not here."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from types import SimpleNamespace

GIB = 1024**3


@dataclass
class Version:
    cuda: str | None = None
    hip: str | None = None


@dataclass
class Properties:
    name: str
    total_memory: int = 80 * GIB
    major: int = 9
    minor: int = 0
    multi_processor_count: int = 132
    uuid: str | None = None
    gcnArchName: str = ""


@dataclass
class Cuda:
    gpus: list[Properties] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    start_error: Exception | None = None
    look_warning: str | None = None
    properties_error: Exception | None = None
    contexts: list[int] = field(default_factory=list)
    emptied: int = 0

    def is_available(self) -> bool:
        if self.look_warning:
            warnings.warn(self.look_warning, stacklevel=2)
        return bool(self.gpus)

    def device_count(self) -> int:
        return len(self.gpus)

    def init(self) -> None:
        if self.start_error:
            raise self.start_error

    def is_initialized(self) -> bool:
        return bool(self.contexts)

    def get_device_properties(self, index: int) -> Properties:
        if self.properties_error:
            raise self.properties_error
        return self.gpus[index]

    def mem_get_info(self, index: int) -> tuple[int, int]:
        self.contexts.append(index)
        return self.free[index], self.gpus[index].total_memory

    def memory_reserved(self, index: int) -> int:
        return (index + 1) * GIB

    def memory_allocated(self, index: int) -> int:
        return (index + 1) * GIB // 2

    def empty_cache(self) -> None:
        self.emptied += 1


@dataclass
class FakeTorch:
    version: Version
    cuda: Cuda


def cuda_build(*gpus: Properties, **cuda: object) -> FakeTorch:
    return FakeTorch(Version(cuda="13.0"), Cuda(list(gpus), **cuda))


def hip_build(*gpus: Properties, **cuda: object) -> FakeTorch:
    return FakeTorch(Version(hip="7.1.25"), Cuda(list(gpus), **cuda))


def cpu_build() -> FakeTorch:
    return FakeTorch(Version(), Cuda())


class FakeNVML:
    """A pynvml-like module that knows devices by UUID only: UUID -> (free, total) bytes."""

    class NVMLError(Exception):
        pass

    def __init__(self, memory_by_uuid: dict[str, tuple[int, int]], starts: bool = True) -> None:
        self._memory = memory_by_uuid
        self._starts = starts
        self.open_count = 0

    def nvmlInit(self) -> None:
        if not self._starts:
            raise self.NVMLError("driver not loaded")
        self.open_count += 1

    def nvmlShutdown(self) -> None:
        self.open_count -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self._memory:
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> object:
        free, total = self._memory[handle]
        return SimpleNamespace(free=free, total=total)
