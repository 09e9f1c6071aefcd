"""What a backend tells about its devices, as plain values. Bytes are bytes; nothing here measures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeviceInfo", "DtypeChoice", "MemoryInfo"]


@dataclass(frozen=True)
class DeviceInfo:
    """One device as it is seen now.

    `architecture` is "sm_90", "gfx942" or, for a CPU, the machine type with the instruction sets that matter
    ("x86_64 avx512_vnni avx512_bf16"). `num_cores` counts streaming multiprocessors or compute units; for a CPU,
    the physical cores that this process may use. `uuid` is None where the device has none.
    """

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    dtypes: tuple[str, ...]
    architecture: str | None
    num_cores: int
    uuid: str | None = None


@dataclass(frozen=True)
class DtypeChoice:
    """A precision ("fp32", "bf16" or "fp16") and why it was taken."""

    dtype: str
    reason: str


@dataclass(frozen=True)
class MemoryInfo:
    """Memory of one device: all of it, what is free now, and what this process holds."""

    total_bytes: int
    free_bytes: int
    process_bytes: int
