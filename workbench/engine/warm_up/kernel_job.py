"""One kernel that is to be compiled, as a value that another process can do the work for: the result is on the disk.

A mark in Triton's cache says that one is there, so that nothing is compiled in the engine's thread to find out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.engine.kernels.cuda_image import CudaSource

__all__ = ["CudaJob", "KernelJob", "TritonJob", "hash_triton", "use_target"]


@dataclass(frozen=True)
class TritonJob:
    """A Triton kernel `module`.`name` for arguments of one kind; `specialization` is Triton's own text about them.

    `target` is what it is compiled for: a backend, an architecture and a warp's size.
    """

    module: str
    name: str
    specialization: str
    target: tuple[str, int | str, int]

    @property
    def label(self) -> str:
        return self.name

    def is_compiled(self) -> bool:
        """Whether it is in Triton's cache."""
        return self._mark().exists()

    def compile(self) -> None:
        """Put it into Triton's cache, with what launches it; `use_target` comes before. Needs no device."""
        from triton.runtime import driver

        kernel = self.load()
        # In some versions a C file for each kind of arguments; without a driver's library there is none to be made.
        with contextlib.suppress(AttributeError):
            driver.active.launcher_cls(kernel.src, kernel.metadata)
        mark = self._mark()
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def load(self) -> Any:
        """Have this process know the kernel: from the cache, or compiled where it is not there."""
        return self._function().preload(self.specialization)

    def _function(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)

    def _mark(self) -> Path:
        import triton

        parts = (triton.__version__, str(self.target), self._function().cache_key, self.specialization)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return Path(triton.knobs.cache.dir) / "workbench" / key


@dataclass(frozen=True)
class CudaJob:
    """A kernel in CUDA C++."""

    source: CudaSource

    @property
    def label(self) -> str:
        return self.source.name

    def compile(self) -> None:
        """Put it into the cache of native code."""
        self.source.image()


KernelJob = TritonJob | CudaJob


def hash_triton() -> None:
    """Have Triton compute what its cache's keys begin with: it reads its own library of some 100 MB, once a process."""
    with contextlib.suppress(ImportError):
        from triton.runtime.cache import triton_key

        triton_key()


def use_target(target: tuple[str, int | str, int]) -> None:
    """Have Triton compile for a target in this process, whether or not such a device is here."""
    from triton.backends import backends
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    active: Any = _NoDriver()
    for backend in backends.values():
        # Where its library is missing there is nothing that could launch a kernel, and all else goes on without.
        with contextlib.suppress(Exception):
            if backend.compiler.supports_target(GPUTarget(*target)):
                active = backend.driver()
    active.get_current_device = lambda: 0
    active.get_current_stream = lambda device: 0
    active.get_current_target = lambda: GPUTarget(*target)
    driver.set_active(active)


class _NoDriver:
    """Stands in for a driver that is not here."""
