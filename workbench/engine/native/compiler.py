"""Which C++ compiler is here, and which instruction sets to build for. Runs no compiler but to ask for its version."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from workbench.backends.processor import Processor

__all__ = ["Compiler", "find_compiler", "processor_obstacle", "target_flags"]

# Every processor with the last of them has the others.
_NEEDED_FLAG = "avx512_vnni"
_BASE_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")
_VERSION_TIMEOUT_S = 20


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its path, and what it says about itself (part of the cache key)."""

    path: str
    version: str


def find_compiler(which: Callable[[str], str | None] = shutil.which) -> Compiler | None:
    """The compiler that `CXX` names, else the first of c++, g++ and clang++ on the path that answers; None without."""
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        path = which(name)
        if path is None:
            continue
        try:
            answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError):
            continue
        if answer.returncode == 0:
            return Compiler(path, answer.stdout.strip())
    return None


def processor_obstacle(processor: Processor) -> str | None:
    """Why this machine's processor cannot run the native decoder, in words; None if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"it is written for Linux on x86-64, and this is {sys.platform} on {platform.machine()}"
    if _NEEDED_FLAG not in processor.flags():
        return f"the CPU has no {_NEEDED_FLAG}"
    return None


def target_flags(processor: Processor) -> list[str]:
    """The compiler's options for this processor."""
    flags = [f"-m{name}" for name in _BASE_FLAGS]
    if {"amx_int8", "amx_bf16"} <= set(processor.flags()):
        flags += ["-mamx-tile", "-mamx-int8", "-mamx-bf16"]
    return flags
