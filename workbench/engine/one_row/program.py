"""Builds the one-row step's kernel once per shape, source and compiler, and loads it onto a GPU.

CUDA's run-time compiler and driver come with torch's own wheels, by way of cuda-bindings.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch

from workbench.engine.kernels.cuda_image import checked, cuda_image

__all__ = ["OneRowProgram"]

_SOURCES = ("device.cuh", "step.cu")
_NAME = b"one_row_step"
_OPTIONS = ("--device-as-default-execution-space",)


def _source_text() -> str:
    """The kernel as one text."""
    return "\n".join((Path(__file__).parent / name).read_text() for name in _SOURCES)


class OneRowProgram:
    """A kernel on a device, of as many blocks as it has multiprocessors."""

    def __init__(self, defines: dict[str, int], num_threads: int, device: torch.device) -> None:
        """Raises BackendUnavailableError with the reason where it cannot be built or loaded."""
        from cuda.bindings import driver

        # Torch's own annotations leave the shared memory out.
        properties: Any = torch.cuda.get_device_properties(device)
        self.num_blocks: int = properties.multi_processor_count
        self._num_threads = num_threads
        self._shared_bytes: int = properties.shared_memory_per_block_optin
        defines = defines | {"BLOCKS": self.num_blocks, "SHARED_LIMIT": self._shared_bytes}
        image = cuda_image("one_row", _source_text(), defines, _OPTIONS)
        self._function = None
        if not image:
            return
        with torch.cuda.device(device):
            # Whatever asks for memory makes the device's context this thread's.
            torch.empty(1, device=device)
            self._module = checked(driver.cuModuleLoadData(image))
            self._function = checked(driver.cuModuleGetFunction(self._module, _NAME))
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            checked(driver.cuFuncSetAttribute(self._function, attribute, self._shared_bytes))

    def launch(self, arguments: ctypes.Structure) -> None:
        """Put it on the current stream; all blocks run at once or it is refused."""
        if self._function is None:
            return
        from cuda.bindings import driver

        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        stream = torch.cuda.current_stream().cuda_stream
        checked(
            driver.cuLaunchCooperativeKernel(
                self._function, self.num_blocks, 1, 1, self._num_threads, 1, 1, self._shared_bytes, stream,
                ctypes.addressof(pointers),
            )
        )  # fmt: skip
