"""A model without weights: modules of the right shapes that take no memory, filled tensor by tensor afterwards."""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.errors import OutOfMemoryError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["allocate", "build_shell", "place", "quiet_transformers", "restore_buffers"]

_OWN_MAPPING_BYTES = 1 << 20


def build_shell(
    config: PretrainedConfig, dtype: torch.dtype, attn_implementation: str | None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The causal language model that `config` describes, on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        module: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attn_implementation, trust_remote_code=trust_remote_code
        )
    return module


def place(module: nn.Module, name: str, tensor: torch.Tensor, *, is_final: bool = True) -> None:
    """Put `tensor` where the shell has the parameter or buffer `name`.

    With `is_final` it is marked as loaded; else `restore_buffers` gives it its family's start value.
    """
    from torch import nn

    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if leaf in owner._parameters:
        tensor = nn.Parameter(tensor, requires_grad=False)
        owner._parameters[leaf] = tensor
    else:
        owner._buffers[leaf] = tensor
    if is_final:
        _mark_as_loaded(tensor)


def restore_buffers(module: PreTrainedModel, device: str) -> None:
    """Tie what is tied and compute on `device` everything that still has no memory (rotary tables, for one).

    transformers computes them by the rule of each family; tensors marked by `place` are left alone.
    """
    for owner in module.modules():
        for leaf, buffer in owner._buffers.items():
            if buffer is not None and buffer.is_meta:
                owner._buffers[leaf] = allocate(tuple(buffer.shape), buffer.dtype, device)
    for parameter in module.parameters():
        # What has no memory yet is put in later: drawing numbers for it would be work for nothing.
        if parameter.is_meta:
            _mark_as_loaded(parameter)
    module.tie_weights()
    module.initialize_weights()


def _mark_as_loaded(tensor: torch.Tensor) -> None:
    # transformers looks for this attribute, which torch's class does not declare.
    tensor._is_hf_initialized = True  # type: ignore[attr-defined]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of transformers' own inside; its settings are put back."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Uninitialised memory. Raises `OutOfMemoryError` with the bytes of this one tensor.

    On the CPU a large tensor is a mapping of its own: freed, it goes back to the system at once and whole, where the
    C heap would keep most of it.
    """
    import torch

    needed_bytes = math.prod(shape) * dtype.itemsize
    try:
        if device == "cpu" and needed_bytes >= _OWN_MAPPING_BYTES:
            return torch.frombuffer(mmap.mmap(-1, needed_bytes), dtype=dtype).view(shape)
        return torch.empty(shape, dtype=dtype, device=device)
    # torch says RuntimeError on the CPU and its subclass OutOfMemoryError on a GPU; the arguments are known good.
    except (RuntimeError, MemoryError, OSError):
        pass
    raise OutOfMemoryError(f"no room on {device} for a tensor of {needed_bytes:,} bytes", needed_bytes=needed_bytes)
