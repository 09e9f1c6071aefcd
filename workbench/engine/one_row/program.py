"""Builds the one-row step's kernel once per shape, source and compiler, and loads it onto a GPU.

CUDA's run-time compiler and driver come with torch's own wheels, by way of cuda-bindings.
"""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path
from typing import Any

import torch

from workbench.errors import BackendUnavailableError, ModelLoadError
from workbench.models.cached_folder import CachedFolder
from workbench.paths import native_cache

__all__ = ["OneRowProgram"]

_SOURCES = ("device.cuh", "step.cu")
_NAME = b"one_row_step"
_FILE_NAME = "one_row.cubin"
_ARCHITECTURE = "sm_90a"


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
        image = _cached_image(defines)
        with torch.cuda.device(device):
            # Whatever asks for memory makes the device's context this thread's.
            torch.empty(1, device=device)
            self._module = _checked(driver.cuModuleLoadData(image))
            self._function = _checked(driver.cuModuleGetFunction(self._module, _NAME))
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _checked(driver.cuFuncSetAttribute(self._function, attribute, self._shared_bytes))

    def launch(self, arguments: ctypes.Structure) -> None:
        """Put it on the current stream; all blocks run at once or it is refused."""
        from cuda.bindings import driver

        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        stream = torch.cuda.current_stream().cuda_stream
        _checked(
            driver.cuLaunchCooperativeKernel(
                self._function, self.num_blocks, 1, 1, self._num_threads, 1, 1, self._shared_bytes, stream,
                ctypes.addressof(pointers),
            )
        )  # fmt: skip


def _cached_image(defines: dict[str, int]) -> bytes:
    from cuda.bindings import nvrtc

    version = ".".join(map(str, _checked(nvrtc.nvrtcVersion())))
    text = _source_text()
    options = [f"--gpu-architecture={_ARCHITECTURE}", "--std=c++17", "--device-as-default-execution-space"]
    options += [f"-D{name}={value}" for name, value in sorted(defines.items())]
    key = hashlib.sha256("\0".join((version, text, *options)).encode()).hexdigest()
    folder = CachedFolder(native_cache(), f"one-row-{key[:16]}", key)
    try:
        path = folder.ensure(lambda path: (path / _FILE_NAME).write_bytes(_compile(text, options)))
        return (path / _FILE_NAME).read_bytes()
    except (ModelLoadError, OSError):  # the cache cannot be written to
        return _compile(text, options)


def _compile(text: str, options: list[str]) -> bytes:
    from cuda.bindings import nvrtc

    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), b"one_row.cu", 0, [], []))
    try:
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if int(result) != 0:
            log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            errors = [line for line in log.decode(errors="replace").splitlines() if "error" in line]
            raise BackendUnavailableError(f"the kernel could not be compiled: {' '.join(errors[:2])[:400]}")
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
