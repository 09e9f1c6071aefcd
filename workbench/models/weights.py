"""Fill a shell with the weights of a folder: streamed when the files match it, else by transformers' own rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from workbench.backends.dtypes import torch_dtype
from workbench.errors import ModelFormatError, WorkbenchError
from workbench.models.files import ModelFiles
from workbench.models.spec import ModelSpec, read_config
from workbench.models.weight_reader import READABLE_DTYPES, WeightReader
from workbench.progress import Progress, ProgressCallback
from workbench.safetensors_header import TensorEntry
from workbench.shell import place, restore_buffers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from workbench.quantize.streaming import StreamingQuantizer

__all__ = ["blaming_files", "check_fits", "load_by_rules", "matches_shell", "names_match", "stream_weights"]

Tensors = Mapping[str, TensorEntry]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def matches_shell(shell: PreTrainedModel, tensors: Tensors, dtype: torch.dtype) -> bool:
    """Whether the files hold the shell's tensors under its own names, so that nothing needs rearranging."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    if getattr(shell.config, "quantization_config", None) is not None or shell._get_dtype_plan(dtype):
        return False
    if any(isinstance(rule, WeightConverter) for rule in get_model_conversion_mapping(shell)):
        return False
    return names_match(shell, tensors)


def names_match(shell: nn.Module, tensors: Tensors) -> bool:
    """Whether the files hold every tensor of the shell under its name, in a precision that can be read."""
    wanted = _wanted_tensors(shell)
    return wanted.keys() <= tensors.keys() and all(tensors[name].dtype in READABLE_DTYPES for name in wanted)


def check_fits(shell: PreTrainedModel, tensors: Tensors) -> None:
    """Raise `ModelFormatError` where the files contradict the config: another shape, or layers it does not have."""
    for name, wanted in _wanted_tensors(shell).items():
        entry = tensors.get(name)
        if entry and entry.shape != tuple(wanted.shape):
            raise ModelFormatError(
                f"{entry.file}: tensor {name!r} has the shape {list(entry.shape)} and config.json makes it "
                f"{list(wanted.shape)}"
            )
    num_layers = shell.config.get_text_config().num_hidden_layers
    ignored = [re.compile(pattern) for pattern in shell._keys_to_ignore_on_load_unexpected or ()]
    for name, entry in tensors.items():
        layer = _LAYER.search(name)
        if layer and int(layer[1]) >= num_layers and not any(pattern.search(name) for pattern in ignored):
            raise ModelFormatError(f"{entry.file} holds {name!r}, and config.json says {num_layers} layers")


def stream_weights(
    shell: PreTrainedModel,
    tensors: Tensors,
    device: str,
    progress: ProgressCallback,
    quantizer: StreamingQuantizer | None = None,
    cut: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Read every tensor of the shell onto `device`, in the order of the files; those that `quantizer` takes become
    smaller before the next is read, and `cut` takes a part of each."""
    wanted = _wanted_tensors(shell)
    entries = sorted((tensors[name] for name in wanted), key=lambda entry: (entry.file, entry.offset))
    total_bytes = sum(entry.num_bytes for entry in entries)
    completed_bytes = 0

    def report(num_bytes: int) -> None:
        nonlocal completed_bytes
        completed_bytes += num_bytes
        progress(Progress("load weights", completed_bytes, total_bytes))

    report(0)
    with WeightReader(device, report) as reader:
        for entry in entries:
            tensor = reader.read(entry, wanted[entry.name].dtype)
            if cut is not None:
                tensor = cut(entry.name, tensor)
            is_taken = quantizer is not None and quantizer.takes(entry.name)
            stays = quantizer.take(entry.name, tensor) if quantizer is not None and is_taken else tensor
            if stays is not None:
                place(shell, entry.name, stays)
        if quantizer is not None:
            dtypes = {name: tensor.dtype for name, tensor in wanted.items()}
            quantizer.improve(partial(_read_named, reader, tensors, dtypes), partial(place, shell))
    restore_buffers(shell, device)


def _read_named(reader: WeightReader, tensors: Tensors, dtypes: Mapping[str, torch.dtype], name: str) -> torch.Tensor:
    return reader.read(tensors[name], dtypes[name])


def load_by_rules(
    files: ModelFiles, config: PretrainedConfig, device: str, dtype: str, attn_implementation: str | None
) -> PreTrainedModel:
    """What transformers makes of files that it must rename, merge, unpack or unpickle.

    Raises `ModelFormatError` rather than leave a tensor at random.
    """
    from transformers import AutoModelForCausalLM

    with blaming_files(files):
        # With output_loading_info the pair that its annotation does not tell of.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(files.path),
            config=config,
            dtype=torch_dtype(dtype),
            attn_implementation=attn_implementation,
            device_map=None if device == "cpu" else {"": device},
            use_safetensors=None if files.allow_pickle else True,
            trust_remote_code=files.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    module: PreTrainedModel
    module, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelFormatError(
            f"{files.path} lacks {len(missing)} of the tensors that config.json asks for, first {missing[0]!r}"
        )
    return module


@contextmanager
def blaming_files(files: ModelFiles) -> Iterator[None]:
    """Turn whatever transformers raises on a model's files into `ModelFormatError`, with its words."""
    failure = None
    try:
        yield
    except (WorkbenchError, MemoryError):
        raise
    # Boundary: the model's files decide which of transformers' many errors comes out.
    except Exception as error:
        failure = _contradiction(files) or f"{files.path or files.name} cannot be loaded: {_in_words(error)}"
    if failure:
        raise ModelFormatError(failure)


def _contradiction(files: ModelFiles) -> str | None:
    """What config.json itself has wrong, where that is why it cannot be loaded."""
    if files.path is None:
        return None
    try:
        ModelSpec.from_config(read_config(files.path))
    except ModelFormatError as error:
        return f"{files.path}: {error}"
    return None


def _in_words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"its config asks for {error}, which transformers does not know"
    return f"{type(error).__name__}: {error}"


def _wanted_tensors(shell: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters (tied ones once) and the buffers that are saved."""
    wanted: dict[str, torch.Tensor] = dict(shell.named_parameters())
    saved = shell.state_dict(keep_vars=True)
    return wanted | {name: buffer for name, buffer in shell.named_buffers() if name in saved}
