"""The three compute precisions and their spellings. Knows torch's names for them, not which device can run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPE_NAMES", "dtype_bytes", "parse_dtype", "torch_dtype"]

DTYPE_NAMES = ("fp32", "bf16", "fp16")

_SPELLINGS = {
    "fp32": "fp32",
    "float32": "fp32",
    "float": "fp32",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
}
_TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def parse_dtype(name: str) -> str:
    """One of `DTYPE_NAMES` for any accepted spelling (`float32`, `bfloat16`, `half`, `torch.float16`, ...).

    Raises ConfigError, listing what is accepted, for anything else.
    """
    spelling = str(name).strip().lower().removeprefix("torch.")
    if spelling not in _SPELLINGS:
        raise ConfigError(f"dtype {name!r} is not known; use one of: {', '.join(_SPELLINGS)}")
    return _SPELLINGS[spelling]


def torch_dtype(name: str) -> torch.dtype:
    """The `torch.dtype` for a spelling that `parse_dtype` accepts."""
    import torch

    dtype: torch.dtype = getattr(torch, _TORCH_NAMES[parse_dtype(name)])
    return dtype


def dtype_bytes(name: str) -> int:
    """Bytes that one number takes."""
    return _BYTES[parse_dtype(name)]
