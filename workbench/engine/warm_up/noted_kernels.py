"""Finds out which kernels steps need by running them: within `noting` this thread's kernels are noted, not run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workbench.engine.kernels.cuda_image import CudaSource, noting_images
from workbench.engine.warm_up.kernel_job import TritonJob

__all__ = ["NotedKernels"]


class NotedKernels:
    """Kernels that this process has not loaded yet, in the order in which they were first wanted.

    What steps compute meanwhile means nothing. Kernels of other threads run as ever.
    """

    def __init__(self) -> None:
        self._triton: dict[TritonJob, None] = {}
        self._sources: list[CudaSource] = []

    @property
    def triton(self) -> list[TritonJob]:
        """Those in Triton, compiled or not."""
        return list(self._triton)

    @property
    def sources(self) -> list[CudaSource]:
        """Those in CUDA C++ that are in no cache. Whatever holds one must be made again once it is there."""
        return list(dict.fromkeys(self._sources))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """See the class. Under Triton's interpreter there is nothing to compile, and kernels do run."""
        from triton import knobs
        from triton.runtime import driver

        own_thread, before = threading.get_ident(), knobs.runtime.jit_cache_hook

        def note(**wanted: Any) -> bool | None:
            if threading.get_ident() != own_thread:
                return None if before is None else before(**wanted)
            target = driver.active.get_current_target()
            specialization = wanted["compile"]["specialization_data"]
            function = wanted["fn"]
            job = TritonJob(
                function.module, function.name, specialization, (target.backend, target.arch, target.warp_size)
            )
            self._triton[job] = None
            return True  # which keeps it from being compiled and launched

        knobs.runtime.jit_cache_hook = note
        try:
            with noting_images(self._sources):
                yield
        finally:
            knobs.runtime.jit_cache_hook = before
