"""Which builds of torch have kernels for an instance's GPUs. Knows the published builds of torch 2.11 to 2.13."""

from __future__ import annotations

from workbench.aws.catalogue import InstanceType

__all__ = ["torch_build_note", "torch_cuda_build"]

# The oldest GPUs in the builds for CUDA 12.8 and newer are Turing; those for 12.6 go back to Volta and stop at Hopper.
_FIRST_OF_CUDA_13 = (7, 5)


def torch_cuda_build(row: InstanceType) -> str | None:
    """ "cu126" where only that build has the GPU's kernels; None where the default build has, and without CUDA."""
    capability = row.gpu.compute_capability if row.gpu else None
    return "cu126" if capability and capability < _FIRST_OF_CUDA_13 else None


def torch_build_note(row: InstanceType) -> str | None:
    """What to mind when installing torch for this type, in words; None when the default build just works."""
    if row.gpu is None or row.not_runnable_reason:
        return row.not_runnable_reason
    if torch_cuda_build(row):
        gpu = f"{row.gpu.product} ({row.gpu.architecture})"
        return f"{gpu} needs the CUDA 12.6 build of torch: the default one starts at sm_75"
    if row.processor == "arm64" and (row.gpu.compute_capability or (0, 0)) < (8, 0):
        return (
            f"torch's CUDA builds for arm64 have left out {row.gpu.architecture}: look at torch.cuda.get_arch_list() "
            "before you rely on this type, or build torch yourself"
        )
    return None
