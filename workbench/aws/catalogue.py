"""The shipped table of EC2 instance types with accelerators. Knows hardware, nothing of prices or this machine."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from typing import Any

from workbench.errors import ConfigError

__all__ = ["GPUModel", "InstanceCatalogue", "InstanceKind", "InstanceType", "Interconnect", "classify_name"]

_MIB = 1024**2
_GIB = 1024**3
# Every family that is named p<n> or g<n> so far carries GPUs; g6f, gr6 and p6-b200 are such families too.
_GPU_FAMILY = re.compile(r"(p|g|gr)\d+[a-z0-9-]*")
_NEURON_FAMILY = re.compile(r"(inf|trn)\d+[a-z]*")


class InstanceKind(Enum):
    """What the accelerators of an instance are."""

    GPU = "gpu"
    NEURON = "neuron"
    CPU = "cpu"


class Interconnect(Enum):
    """How the accelerators of one instance reach each other."""

    NONE = "none"
    PCIE = "pcie"
    NVLINK = "nvlink"
    NEURONLINK = "neuronlink"


@dataclass(frozen=True)
class GPUModel:
    """One GPU as sold. Bandwidths are peaks in 10^9 bytes a second; `tflops_16bit` is dense, None where unknown.

    `nominal_gb` is the size in the product's name, `memory_mib` what EC2 states for it, and `architecture` is "sm_75"
    for CUDA and "gfx1011" for ROCm.
    """

    name: str
    vendor: str
    nominal_gb: int
    memory_mib: int
    bandwidth_gb_s: int
    architecture: str
    nvlink_gb_s: int | None
    tflops_16bit: int | None

    @property
    def product(self) -> str:
        """The name without the memory that tells two of a kind apart: "V100" for V100-32GB."""
        return self.name.partition("-")[0]

    @property
    def backend_name(self) -> str:
        """ "rocm" for AMD, "cuda" for NVIDIA."""
        return "rocm" if self.vendor == "AMD" else "cuda"

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """(7, 5) for sm_75; None for GPUs without CUDA."""
        digits = self.architecture.removeprefix("sm_")
        return (int(digits[:-1]), int(digits[-1])) if digits.isdigit() else None


@dataclass(frozen=True)
class InstanceType:
    """One row. `gpu` is None for Neuron instances; `gpu_fraction` is below 1 where a GPU is shared by partition.

    `network_gbit_s` is the most the network gives; with `is_network_burst` only for a while. `processor` is "x86_64" or
    "arm64". Types that are not `is_listed` are ones EC2 has stopped offering.
    """

    name: str
    kind: InstanceKind
    accelerator: str
    accelerator_count: int
    gpu: GPUModel | None
    gpu_fraction: float
    interconnect: Interconnect
    num_vcpus: int
    host_memory_bytes: int
    network_gbit_s: float
    is_network_burst: bool
    processor: str
    is_listed: bool = True

    @property
    def family(self) -> str:
        """ "g6e" for g6e.12xlarge."""
        return self.name.partition(".")[0]

    @property
    def gpu_count(self) -> int:
        """Number of GPUs that CUDA or ROCm shows; 0 for Neuron instances."""
        return self.accelerator_count if self.gpu else 0

    @property
    def memory_bytes_per_gpu(self) -> int:
        """Bytes of one GPU, or of the part of it that the instance has; 0 without GPUs."""
        return int(self.gpu.memory_mib * self.gpu_fraction) * _MIB if self.gpu else 0

    @property
    def gpu_memory_bytes(self) -> int:
        """Bytes of all GPUs together."""
        return self.memory_bytes_per_gpu * self.gpu_count

    @property
    def nominal_gpu_memory_gb(self) -> int:
        """Total GPU memory by the products' names: 64 for four T4 with 16 GB."""
        return round(self.gpu.nominal_gb * self.gpu_fraction) * self.gpu_count if self.gpu else 0

    @property
    def not_runnable_reason(self) -> str | None:
        """Why models cannot run on these accelerators, in words; None when they can."""
        if self.kind is InstanceKind.NEURON:
            return f"{self.accelerator} needs the AWS Neuron SDK; this package runs on CUDA, ROCm and CPUs"
        if self.gpu and self.gpu.architecture == "gfx1011":
            return "the published ROCm builds of torch have no kernels for gfx1011 (Radeon Pro V520)"
        if self.gpu and self.gpu.architecture == "sm_52":
            return "sm_52 (Tesla M60) is too old: the kernels need sm_70 or newer"
        return None


class InstanceCatalogue:
    """All known instance types, in the table's order: newest GPUs last within a line of families."""

    def __init__(self, types: Sequence[InstanceType], sources: Sequence[str] = ()) -> None:
        self._types = {instance_type.name: instance_type for instance_type in types}
        self.sources = tuple(sources)

    @classmethod
    @functools.cache
    def shipped(cls) -> InstanceCatalogue:
        """The table that comes with the package, read once."""
        return _parse(json.loads(resources.files("workbench.aws").joinpath("instances.json").read_text("utf-8")))

    def find(self, name: str) -> InstanceType | None:
        """The row of that exact name, or None."""
        return self._types.get(name)

    def get(self, name: str) -> InstanceType:
        """The row of that exact name. Raises ConfigError that lists the family's or all families' names."""
        row = self.find(name)
        if row is None:
            family = name.partition(".")[0]
            near = [known for known in self._types if known.partition(".")[0] == family]
            families = dict.fromkeys(known.partition(".")[0] for known in self._types)
            raise ConfigError(f"instance type {name!r} is not in the table; known are: {', '.join(near or families)}")
        return row

    def list(self) -> list[InstanceType]:
        """All rows."""
        return [*self._types.values()]


def classify_name(name: str) -> InstanceKind:
    """What an instance type must be by the name of its family, also for types that no table has yet."""
    family = name.partition(".")[0]
    if _NEURON_FAMILY.fullmatch(family):
        return InstanceKind.NEURON
    return InstanceKind.GPU if _GPU_FAMILY.fullmatch(family) else InstanceKind.CPU


def _parse(table: dict[str, Any]) -> InstanceCatalogue:
    gpus = {name: GPUModel(name=name, **facts) for name, facts in table["gpus"].items()}
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["instances"]]
    types = [_parse_row(row, gpus, table) for row in rows]
    sources = [f"{entry['what']}: {entry['source']} ({entry['date']})" for entry in table["sources"]]
    return InstanceCatalogue(types, sources)


def _parse_row(row: dict[str, Any], gpus: dict[str, GPUModel], table: dict[str, Any]) -> InstanceType:
    accelerator = row["accelerator"]
    assert accelerator in gpus or accelerator in table["neuron_devices"], accelerator
    return InstanceType(
        name=row["name"],
        kind=InstanceKind.GPU if accelerator in gpus else InstanceKind.NEURON,
        accelerator=accelerator,
        accelerator_count=row["accelerator_count"],
        gpu=gpus.get(accelerator),
        gpu_fraction=row["accelerator_fraction"],
        interconnect=Interconnect(row["interconnect"]),
        num_vcpus=row["num_vcpus"],
        host_memory_bytes=int(row["host_memory_gib"] * _GIB),
        network_gbit_s=row["network_gbit_s"],
        is_network_burst=row["is_network_burst"],
        processor=row["processor"],
        is_listed=row["name"] not in table["no_longer_listed"],
    )
