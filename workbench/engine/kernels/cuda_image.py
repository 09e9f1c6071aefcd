"""CUDA C++ compiled for Hopper by CUDA's run-time compiler, once per text, options and compiler: kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from workbench.errors import BackendUnavailableError, ModelLoadError
from workbench.models.cached_folder import CachedFolder
from workbench.paths import native_cache

__all__ = ["CudaSource", "checked", "cuda_image", "noting_images"]

_ARCHITECTURE = "sm_90a"
_FILE_NAME = "kernel.cubin"


# Sources whose images this thread notes instead of compiling them.
_noted: ContextVar[list[CudaSource] | None] = ContextVar("noted", default=None)


@dataclass(frozen=True)
class CudaSource:
    """A kernel's text, and what the compiler is told beside it."""

    name: str
    text: str
    options: tuple[str, ...]

    def image(self) -> bytes:
        """The cubin. Raises BackendUnavailableError with the compiler's first errors."""
        folder = self._folder()
        try:
            path = folder.ensure(lambda path: (path / _FILE_NAME).write_bytes(self._compile()))
            return (path / _FILE_NAME).read_bytes()
        except (ModelLoadError, OSError):  # the cache cannot be written to
            return self._compile()

    def is_compiled(self) -> bool:
        """Whether the image is in the cache."""
        return self._folder().is_ready()

    def _folder(self) -> CachedFolder:
        from cuda.bindings import nvrtc

        version = ".".join(map(str, checked(nvrtc.nvrtcVersion())))
        key = hashlib.sha256("\0".join((version, self.text, *self.options)).encode()).hexdigest()
        return CachedFolder(native_cache(), f"{self.name}-{key[:16]}", key)

    def _compile(self) -> bytes:
        return _compile(self.name, self.text, list(self.options))


def cuda_image(name: str, text: str, defines: dict[str, int], options: Sequence[str] = ()) -> bytes:
    """The cubin of a source, empty where it is noted instead. Raises BackendUnavailableError with the compiler's first
    errors."""
    options = [f"--gpu-architecture={_ARCHITECTURE}", "--std=c++17", *options]
    options += [f"-D{define}={value}" for define, value in sorted(defines.items())]
    source = CudaSource(name, text, tuple(options))
    noted = _noted.get()
    if noted is not None and not source.is_compiled():
        noted.append(source)
        return b""
    return source.image()


@contextmanager
def noting_images(noted: list[CudaSource]) -> Iterator[None]:
    """Within, sources that are in no cache are added to `noted`, and their kernels do nothing when launched."""
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)


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
