"""A model without weights: modules of the right shapes that take no memory, filled tensor by tensor afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.models.weight_reader import allocate

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["build_shell", "place", "quiet_transformers", "restore_buffers"]


def build_shell(
    config: PretrainedConfig, dtype: torch.dtype, attn_implementation: str | None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The causal language model that `config` describes, on torch's meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attn_implementation, trust_remote_code=trust_remote_code
        )


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
        tensor._is_hf_initialized = True


def restore_buffers(module: PreTrainedModel, device: str) -> None:
    """Tie what is tied and compute on `device` everything that still has no memory (rotary tables, for one).

    transformers computes them by the rule of each family; tensors marked by `place` are left alone.
    """
    for owner in module.modules():
        for leaf, buffer in owner._buffers.items():
            if buffer is not None and buffer.is_meta:
                owner._buffers[leaf] = allocate(tuple(buffer.shape), buffer.dtype, device)
    module.tie_weights()
    module.initialize_weights()


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
