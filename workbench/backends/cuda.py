"""NVIDIA GPUs. Not available on a HIP build of torch, which answers to `torch.cuda` too but is ROCm."""

from __future__ import annotations

from typing import Any

from workbench.backends.facts import DeviceInfo, DtypeChoice
from workbench.backends.gpu import GPUBackend
from workbench.backends.nvml import NVML

__all__ = ["CUDABackend"]


class CUDABackend(GPUBackend):
    """NVIDIA GPUs through a CUDA build of torch. `nvml` tells free memory without starting CUDA on the device."""

    name = "cuda"
    gpu_type = "NVIDIA"
    visibility_variables = ("CUDA_VISIBLE_DEVICES",)

    def __init__(self, probe: Any = None, nvml: NVML | None = None) -> None:
        super().__init__(probe)
        self._nvml = nvml

    def default_dtype(self, index: int = 0) -> DtypeChoice:
        """bf16 from compute capability 8.0 on, else fp16."""
        device = self.device(index)
        if "bf16" in device.dtypes:
            return DtypeChoice("bf16", f"{device.name} ({device.architecture}) computes in bf16")
        return DtypeChoice("fp16", f"{device.name} ({device.architecture}) has no bf16 units; those start at sm_80")

    def _wrong_build(self, torch: Any) -> str | None:
        if torch.version.hip is not None:
            return f"torch was built for ROCm (HIP {torch.version.hip}), not for CUDA"
        if torch.version.cuda is None:
            return "torch was built without CUDA"
        return None

    def _describe(self, torch: Any, index: int, properties: Any) -> DeviceInfo:
        uuid = _uuid(properties)
        free = self._free_bytes(uuid, properties.total_memory)
        if free is None:
            free = torch.cuda.mem_get_info(index)[0]
        return DeviceInfo(
            index=index,
            name=properties.name,
            total_bytes=properties.total_memory,
            # The driver counts memory that CUDA keeps for itself; never report more free than there is.
            free_bytes=min(free, properties.total_memory),
            dtypes=("fp32", "bf16", "fp16") if properties.major >= 8 else ("fp32", "fp16"),
            architecture=f"sm_{properties.major}{properties.minor}",
            num_cores=properties.multi_processor_count,
            uuid=uuid,
        )

    def _free_bytes(self, uuid: str | None, total_bytes: int) -> int | None:
        if self._nvml is None:
            self._nvml = NVML()
        return self._nvml.free_bytes(uuid, total_bytes)


def _uuid(properties: Any) -> str | None:
    uuid = getattr(properties, "uuid", None)
    return None if uuid is None else str(uuid)
