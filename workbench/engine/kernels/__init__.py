"""GPU kernels in Triton, one operation a file. Each launcher takes tensors and returns or fills tensors.

They run on CUDA and ROCm, and on CPU tensors under Triton's interpreter (`TRITON_INTERPRET=1`), where tests check
them. Importing this package needs Triton; callers ask `kernels_unavailable_reason` first.
"""
