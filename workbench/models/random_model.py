"""A model with random weights, made on the device in the wanted precision: for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.backends.dtypes import torch_dtype
from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.models.load_memory import check_memory
from workbench.models.model_part import ModelPart
from workbench.models.presets import get_preset
from workbench.models.tokenizer import Tokenizer
from workbench.progress import Progress, ProgressCallback, no_progress
from workbench.shell import allocate, build_shell, place, quiet_transformers, restore_buffers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from workbench.quantize.streaming import StreamingQuantizer

__all__ = ["RandomModel", "fill_randomly", "make_random_model", "make_random_shell", "preset_config"]


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
    shell, tokenizer = make_random_shell(preset, dtype=dtype, attn_implementation=attn_implementation)
    with quiet_transformers():
        quantizer = None if quantizer_for is None else quantizer_for(shell)
        if quantizer is None:
            check_memory(sum(parameter.nbytes for parameter in shell.parameters()), device, dtype)
        fill_randomly(shell, device, progress, seed=seed, quantizer=quantizer)
    return RandomModel(shell, tokenizer)


def make_random_shell(
    preset: str, *, dtype: str, attn_implementation: str | None = None
) -> tuple[PreTrainedModel, Tokenizer]:
    """The preset without weights, and its tokenizer. Raises `ModelNotFoundError` for an unknown preset."""
    tokenizer = make_byte_tokenizer(get_preset(preset).fields["vocab_size"])
    with quiet_transformers():
        shell = build_shell(preset_config(preset, tokenizer), torch_dtype(dtype), attn_implementation)
    return shell, tokenizer


def fill_randomly(
    shell: PreTrainedModel,
    device: str,
    progress: ProgressCallback,
    *,
    seed: int = 0,
    part: ModelPart | None = None,
    quantizer: StreamingQuantizer | None = None,
) -> None:
    """Draw a shell's weights. A part of a model gets what the whole would have there; `quantizer` packs on the way."""
    import torch

    generator, std = torch.Generator(device).manual_seed(seed), shell.config.initializer_range
    parameters = dict(shell.named_parameters())
    total_bytes = sum(parameter.nbytes for parameter in parameters.values())
    completed_bytes = 0
    if part is not None:
        part.narrow(shell)
    kept = {name for name, _ in shell.named_parameters()}
    for name, parameter in parameters.items():
        progress(Progress("make weights", completed_bytes, total_bytes))
        made = allocate(tuple(parameter.shape), parameter.dtype, device)
        tensor: torch.Tensor | None = made
        if made.dim() > 1:
            made.normal_(0.0, std, generator=generator)
            if quantizer is not None and quantizer.takes(name):
                tensor = quantizer.take(name, made)
        if part is not None and tensor is not None and name in kept:
            tensor = part.cut(name, tensor)
        if name not in kept or tensor is None:
            pass
        elif tensor.dim() > 1:
            place(shell, name, tensor)
        else:
            # Left unmarked, so that transformers gives it the family's own start value.
            place(shell, name, tensor, is_final=False)
        completed_bytes += parameter.nbytes
    progress(Progress("make weights", total_bytes, total_bytes))
    restore_buffers(shell, device)
