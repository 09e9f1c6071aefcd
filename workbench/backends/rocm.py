"""AMD GPUs, through a HIP build of torch (whose device strings say "cuda")."""

from __future__ import annotations

from typing import Any

from workbench.backends.facts import DeviceInfo, DtypeChoice
from workbench.backends.gpu import GPUBackend

__all__ = ["ROCMBackend"]

_MIB = 1024**2
# Matrix units with bf16: CDNA 1 to 4 by number, RDNA 3 and 4 by family.
_BF16_CDNA = ("gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx950")
_BF16_RDNA_FAMILIES = ("gfx11", "gfx12")


class ROCMBackend(GPUBackend):
    """AMD GPUs through a HIP build of torch."""

    name = "rocm"
    gpu_type = "AMD"
    visibility_variables = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")

    def default_dtype(self, index: int = 0) -> DtypeChoice:
        """bf16 where the matrix units have it, else fp16."""
        device = self.device(index)
        if "bf16" in device.dtypes:
            return DtypeChoice("bf16", f"{device.name} ({device.architecture}) computes in bf16")
        return DtypeChoice("fp16", f"{device.name} ({device.architecture}) has no bf16 matrix units")

    def get_gpu_info(self) -> dict[str, dict[str, object]]:
        """`{"rocm:0": {name, total_memory, major, minor}, ...}`, `total_memory` in MiB; {} when not available."""
        if not self.is_available():
            return {}
        cuda = self._torch().cuda
        return {
            f"rocm:{index}": {
                "name": properties.name,
                "total_memory": properties.total_memory / _MIB,
                "major": properties.major,
                "minor": properties.minor,
            }
            for index, properties in enumerate(map(cuda.get_device_properties, range(cuda.device_count())))
        }

    def _wrong_build(self, torch: Any) -> str | None:
        return "torch was built without HIP" if torch.version.hip is None else None

    def _describe(self, torch: Any, index: int, properties: Any) -> DeviceInfo:
        # "gfx942:sramecc+:xnack-": the part before the first colon names the architecture.
        architecture = properties.gcnArchName.partition(":")[0]
        has_bf16 = architecture in _BF16_CDNA or architecture.startswith(_BF16_RDNA_FAMILIES)
        uuid = getattr(properties, "uuid", None)
        return DeviceInfo(
            index=index,
            name=properties.name,
            total_bytes=properties.total_memory,
            free_bytes=torch.cuda.mem_get_info(index)[0],
            dtypes=("fp32", "bf16", "fp16") if has_bf16 else ("fp32", "fp16"),
            architecture=architecture,
            num_cores=properties.multi_processor_count,
            uuid=None if uuid is None else str(uuid),
        )
