"""A model with random weights, made on the device in the wanted precision: for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.backends.dtypes import torch_dtype
from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.models.load_memory import check_memory
from workbench.models.presets import get_preset
from workbench.models.tokenizer import Tokenizer
from workbench.progress import Progress, ProgressCallback, no_progress
from workbench.shell import allocate, build_shell, place, quiet_transformers, restore_buffers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from workbench.quantize.streaming import StreamingQuantizer

__all__ = ["RandomModel", "make_random_model", "preset_config"]


@dataclass(frozen=True)
class RandomModel:
    """The model and the tokenizer that fits its vocabulary."""

    module: PreTrainedModel
    tokenizer: Tokenizer


def preset_config(name: str, tokenizer: Tokenizer) -> PretrainedConfig:
    """The transformers config of a preset, with the special ids of `tokenizer`."""
    from transformers import AutoConfig

    special = {"eos_token_id": tokenizer.hf.eos_token_id, "pad_token_id": tokenizer.hf.pad_token_id}
    preset = get_preset(name)
    return AutoConfig.for_model(preset.model_type, **preset.fields, bos_token_id=None, **special)


def make_random_model(
    preset: str,
    *,
    device: str,
    dtype: str,
    attn_implementation: str | None = None,
    progress: ProgressCallback = no_progress,
    seed: int = 0,
    quantizer_for: Callable[[PreTrainedModel], StreamingQuantizer] | None = None,
) -> RandomModel:
    """The preset with weights drawn from `seed`; the same seed, device and dtype give the same weights.

    `quantizer_for` makes what takes the matrices of the shell as they are drawn.

    Matrices follow the config's `initializer_range`; norms, biases and tables are what the family starts with.
    Raises `ModelNotFoundError` for an unknown preset and `OutOfMemoryError`.
    """
    tokenizer = make_byte_tokenizer(get_preset(preset).fields["vocab_size"])
    config = preset_config(preset, tokenizer)
    with quiet_transformers():
        shell = build_shell(config, torch_dtype(dtype), attn_implementation)
        quantizer = None if quantizer_for is None else quantizer_for(shell)
        if quantizer is None:
            check_memory(sum(parameter.nbytes for parameter in shell.parameters()), device, dtype)
        _fill(shell, device, config.initializer_range, seed, progress, quantizer)
        restore_buffers(shell, device)
    return RandomModel(shell, tokenizer)


def _fill(
    shell: PreTrainedModel,
    device: str,
    std: float,
    seed: int,
    progress: ProgressCallback,
    quantizer: StreamingQuantizer | None,
) -> None:
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    parameters = dict(shell.named_parameters())
    total_bytes = sum(parameter.nbytes for parameter in parameters.values())
    completed_bytes = 0
    for name, parameter in parameters.items():
        progress(Progress("make weights", completed_bytes, total_bytes))
        tensor = allocate(tuple(parameter.shape), parameter.dtype, device)
        if tensor.dim() > 1:
            tensor.normal_(0.0, std, generator=generator)
            if quantizer is not None and quantizer.takes(name):
                tensor = quantizer.take(name, tensor)
            if tensor is not None:
                place(shell, name, tensor)
        else:
            # Left unmarked, so that transformers gives it the family's own start value.
            place(shell, name, tensor, is_final=False)
        completed_bytes += parameter.nbytes
    progress(Progress("make weights", total_bytes, total_bytes))
