"""A CUDA C++ kernel on a device: built once per source, options and compiler, kept on disk, put on the current stream.

CUDA's run-time compiler and driver come with torch's own wheels, by way of cuda-bindings.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from workbench.engine.kernels.cuda_image import checked, cuda_image

__all__ = ["CudaFunction", "cuda_obstacle"]


def cuda_obstacle(device: torch.device) -> str | None:
    """Why such kernels cannot be built for a device, in words; None if they can."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "the device is no NVIDIA GPU"
    if torch.cuda.get_device_capability(device) != (9, 0):
        return "the GPU is not of compute capability 9.0"
    try:
        from cuda.bindings import driver, nvrtc  # noqa: F401

        nvrtc.nvrtcVersion()
    except ImportError:
        return "cuda-bindings is not installed"
    except RuntimeError as error:
        return f"CUDA's run-time compiler cannot be loaded: {error}"
    return None


class CudaFunction:
    """The kernel `source.stem` of a file, compiled with `defines`, with so many bytes of shared memory."""

    def __init__(self, source: Path, defines: dict[str, int], device: torch.device, shared_bytes: int = 0) -> None:
        """Raises BackendUnavailableError with the reason where it cannot be built or loaded."""
        from cuda.bindings import driver

        self._shared_bytes = shared_bytes
        image = cuda_image(source.stem, source.read_text(), defines)
        self._function = None
        if not image:
            return
        with torch.cuda.device(device):
            # Whatever asks for memory makes the device's context this thread's.
            torch.empty(1, device=device)
            self._module = checked(driver.cuModuleLoadData(image))
            self._function = checked(driver.cuModuleGetFunction(self._module, source.stem.encode()))
            if shared_bytes:
                attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                checked(driver.cuFuncSetAttribute(self._function, attribute, shared_bytes))

    def launch(self, num_blocks: int, num_threads: int, arguments: Sequence[Any]) -> None:
        """Put it on the current stream, where it may start before the kernel before it ends. `arguments` are ctypes
        values."""
        if self._function is None:
            return
        from cuda.bindings import driver

        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = num_blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = num_threads, 1, 1
        config.sharedMemBytes = self._shared_bytes
        config.hStream = torch.cuda.current_stream().cuda_stream
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        config.attrs, config.numAttrs = [attribute], 1
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        checked(driver.cuLaunchKernelEx(config, self._function, ctypes.addressof(pointers), 0))
