"""Builds the native decoder once per source, compiler and processor, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Callable
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from workbench.backends.processor import Processor
from workbench.engine.native.compiler import Compiler, find_compiler, processor_obstacle, target_flags
from workbench.engine.native.structs import MatrixStruct, ShapeStruct, StepStruct
from workbench.errors import BackendUnavailableError, ModelLoadError
from workbench.models.cached_folder import CachedFolder
from workbench.paths import native_cache

__all__ = ["NativeLibrary", "build_library", "cached_library", "load_library", "native_obstacle"]

_SOURCES = Path(__file__).parent
_OPTIONS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-ffp-contract=off")
_FILE_NAME = "decoder.so"
_BUILD_TIMEOUT_S = 300


class NativeLibrary:
    """The loaded library's functions, with types. Calls into it release Python's global lock."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.packed_bytes = _typed(library.workbench_packed_bytes, c_int64, c_int32, c_int32, c_int32)
        self.pack = _typed(
            library.workbench_pack, None, c_int32, c_void_p, c_void_p, c_void_p, c_int32, c_int32, c_void_p
        )
        self.advise = _typed(library.workbench_advise, None, c_void_p, c_int64)
        self.multiply = _typed(library.workbench_multiply, None, POINTER(MatrixStruct), c_void_p, c_int32, c_void_p)
        self.attend = _typed(
            library.workbench_attend, None, c_int32, c_void_p, c_void_p, c_void_p, *([c_int32] * 7), c_float,
            c_void_p, c_void_p,
        )  # fmt: skip
        self.new_decoder = _typed(library.workbench_decoder_new, c_void_p, POINTER(ShapeStruct))
        self.delete_decoder = _typed(library.workbench_decoder_delete, None, c_void_p)
        self.run = _typed(library.workbench_decoder_run, None, c_void_p, POINTER(StepStruct))


def native_obstacle(processor: Processor) -> str | None:
    """Why the library cannot be had here, in words; None if it is built already or can be."""
    obstacle = processor_obstacle(processor)
    if obstacle is None and find_compiler() is None:
        obstacle = "there is no C++ compiler (c++, g++ or clang++) on the path"
    return obstacle


def cached_library(processor: Processor) -> Path | None:
    """The library if it has been built before for this source, compiler and processor."""
    compiler = find_compiler()
    if compiler is None:
        return None
    folder = _folder(compiler, processor)
    return folder.path / _FILE_NAME if folder.is_ready() else None


def build_library(processor: Processor) -> Path:
    """The library, compiled on the first call; processes that ask at once wait for one of them.

    Raises BackendUnavailableError with the compiler's words.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BackendUnavailableError("there is no C++ compiler (c++, g++ or clang++) on the path")
    folder = _folder(compiler, processor)
    try:
        return folder.ensure(lambda path: _compile(compiler, target_flags(processor), path)) / _FILE_NAME
    except ModelLoadError as error:  # the cache cannot be written to
        raise BackendUnavailableError(str(error)) from error


def load_library(path: Path) -> NativeLibrary:
    """Raises BackendUnavailableError where the file cannot be loaded."""
    try:
        return NativeLibrary(path)
    except (OSError, AttributeError) as error:
        raise BackendUnavailableError(f"{path} cannot be loaded: {error}") from error


def _folder(compiler: Compiler, processor: Processor) -> CachedFolder:
    digest = hashlib.sha256()
    for part in (compiler.path, compiler.version, *_OPTIONS, *target_flags(processor)):
        digest.update(part.encode() + b"\0")
    for source in _source_files():
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    key = digest.hexdigest()
    return CachedFolder(native_cache(), f"decoder-{key[:16]}", key)


def _source_files() -> list[Path]:
    return sorted(path for path in _SOURCES.iterdir() if path.suffix in (".h", ".cpp"))


def _compile(compiler: Compiler, flags: list[str], folder: Path) -> None:
    units = [str(path) for path in _source_files() if path.suffix == ".cpp"]
    command = [compiler.path, *_OPTIONS, *flags, *units, "-o", str(folder / _FILE_NAME)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnavailableError(f"the native decoder could not be compiled: {error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BackendUnavailableError(
            f"{compiler.path} could not compile the native decoder: {' '.join(lines[:2])[:400]}"
        )


def _typed(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
    function.restype, function.argtypes = result, arguments
    typed: Callable[..., Any] = function
    return typed
