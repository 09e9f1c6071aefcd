"""CUDA C++ compiled for Hopper by CUDA's run-time compiler, once per text, options and compiler: kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from workbench.errors import BackendUnavailableError, ModelLoadError
from workbench.models.cached_folder import CachedFolder
from workbench.paths import native_cache

__all__ = ["checked", "cuda_image"]

_ARCHITECTURE = "sm_90a"
_FILE_NAME = "kernel.cubin"


def cuda_image(name: str, text: str, defines: dict[str, int], options: Sequence[str] = ()) -> bytes:
    """The cubin of a source. Raises BackendUnavailableError with the compiler's first errors."""
    from cuda.bindings import nvrtc

    version = ".".join(map(str, checked(nvrtc.nvrtcVersion())))
    options = [f"--gpu-architecture={_ARCHITECTURE}", "--std=c++17", *options]
    options += [f"-D{define}={value}" for define, value in sorted(defines.items())]
    key = hashlib.sha256("\0".join((version, text, *options)).encode()).hexdigest()
    folder = CachedFolder(native_cache(), f"{name}-{key[:16]}", key)
    try:
        path = folder.ensure(lambda path: (path / _FILE_NAME).write_bytes(_compile(name, text, options)))
        return (path / _FILE_NAME).read_bytes()
    except (ModelLoadError, OSError):  # the cache cannot be written to
        return _compile(name, text, options)


def _compile(name: str, text: str, options: list[str]) -> bytes:
    from cuda.bindings import nvrtc

    program = checked(nvrtc.nvrtcCreateProgram(text.encode(), f"{name}.cu".encode(), 0, [], []))
    try:
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if int(result) != 0:
            log = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
            nvrtc.nvrtcGetProgramLog(program, log)
            errors = [line for line in log.decode(errors="replace").splitlines() if "error" in line]
            raise BackendUnavailableError(f"{name}.cu could not be compiled: {' '.join(errors[:2])[:400]}")
        image = bytearray(checked(nvrtc.nvrtcGetCUBINSize(program)))
        nvrtc.nvrtcGetCUBIN(program, image)
        return bytes(image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def checked(answer: tuple[Any, ...]) -> Any:
    """What a call of CUDA gave. Raises BackendUnavailableError if it failed."""
    result, *values = answer
    if int(result) != 0:
        raise BackendUnavailableError(f"CUDA answers {result!r}")
    return values[0] if len(values) == 1 else values
