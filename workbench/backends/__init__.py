"""Kinds of devices: what is there, what it can do, and the reason why not. Importing this loads no torch."""

from workbench.backends.base import Backend
from workbench.backends.cpu import CPUBackend
from workbench.backends.cuda import CUDABackend
from workbench.backends.dtypes import DTYPE_NAMES, dtype_bytes, parse_dtype, torch_dtype
from workbench.backends.facts import DeviceInfo, DtypeChoice, MemoryInfo
from workbench.backends.rocm import ROCMBackend
from workbench.backends.selection import (
    BACKEND_NAMES,
    BackendChoice,
    BackendStatus,
    detect,
    get_backend,
    require_backend,
    select_backend,
)

__all__ = [
    "BACKEND_NAMES",
    "DTYPE_NAMES",
    "Backend",
    "BackendChoice",
    "BackendStatus",
    "CPUBackend",
    "CUDABackend",
    "DeviceInfo",
    "DtypeChoice",
    "MemoryInfo",
    "ROCMBackend",
    "detect",
    "dtype_bytes",
    "get_backend",
    "parse_dtype",
    "require_backend",
    "select_backend",
    "torch_dtype",
]
