"""A CUDA C++ kernel on a device: built once per source, options and compiler, kept on disk, put on the current stream.

CUDA's run-time compiler and driver come with torch's own wheels, by way of cuda-bindings.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from workbench.errors import BackendUnavailableError, ModelLoadError
from workbench.models.cached_folder import CachedFolder
from workbench.paths import native_cache

__all__ = ["CudaFunction", "cuda_obstacle"]

_ARCHITECTURE = "sm_90a"
_FILE_NAME = "kernel.cubin"


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
        image = _cached_image(source, defines)
        with torch.cuda.device(device):
            # Whatever asks for memory makes the device's context this thread's.
            torch.empty(1, device=device)
            self._module = _checked(driver.cuModuleLoadData(image))
            self._function = _checked(driver.cuModuleGetFunction(self._module, source.stem.encode()))
            if shared_bytes:
                attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                _checked(driver.cuFuncSetAttribute(self._function, attribute, shared_bytes))

    def launch(self, num_blocks: int, num_threads: int, arguments: Sequence[Any]) -> None:
        """Put it on the current stream, where it may start before the kernel before it ends. `arguments` are ctypes
        values."""
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
        _checked(driver.cuLaunchKernelEx(config, self._function, ctypes.addressof(pointers), 0))


def _cached_image(source: Path, defines: dict[str, int]) -> bytes:
    from cuda.bindings import nvrtc

    version = ".".join(map(str, _checked(nvrtc.nvrtcVersion())))
    text = source.read_text()
    options = [f"--gpu-architecture={_ARCHITECTURE}", "--std=c++17"]
    options += [f"-D{name}={value}" for name, value in sorted(defines.items())]
    key = hashlib.sha256("\0".join((version, text, *options)).encode()).hexdigest()
    folder = CachedFolder(native_cache(), f"{source.stem}-{key[:16]}", key)
    try:
        path = folder.ensure(lambda path: (path / _FILE_NAME).write_bytes(_compile(source.name, text, options)))
        return (path / _FILE_NAME).read_bytes()
    except (ModelLoadError, OSError):  # the cache cannot be written to
        return _compile(source.name, text, options)


def _compile(name: str, text: str, options: list[str]) -> bytes:
    from cuda.bindings import nvrtc

    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), name.encode(), 0, [], []))
    try:
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if int(result) != 0:
            log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            errors = [line for line in log.decode(errors="replace").splitlines() if "error" in line]
            raise BackendUnavailableError(f"{name} could not be compiled: {' '.join(errors[:2])[:400]}")
        image = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
        nvrtc.nvrtcGetCUBIN(program, image)
        return bytes(image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a call of CUDA gave. Raises BackendUnavailableError if it failed."""
    result, *values = answer
    if int(result) != 0:
        raise BackendUnavailableError(f"CUDA answers {result!r}")
    return values[0] if len(values) == 1 else values
