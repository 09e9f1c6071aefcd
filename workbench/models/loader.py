"""From files to a model that can run: checks memory first, and gives everything back when it fails."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from workbench.backends.dtypes import parse_dtype, torch_dtype
from workbench.errors import ConfigError, ModelFormatError
from workbench.models.files import ModelFiles
from workbench.models.gguf_weights import fill_from_gguf
from workbench.models.load_memory import all_or_nothing, check_memory
from workbench.models.loaded_model import LoadedModel, count_bytes, describe_loaded
from workbench.models.model_part import ModelPart
from workbench.models.quantized_load import load_packed_model, load_quantized
from workbench.models.random_model import fill_randomly, make_random_model, make_random_shell
from workbench.models.tokenizer import Tokenizer, load_tokenizer
from workbench.models.weights import blaming_files, check_fits, load_by_rules, matches_shell, stream_weights
from workbench.progress import Progress, ProgressCallback, no_progress
from workbench.quantize import QuantizationCache, QuantizationConfig
from workbench.quantize.memory import storage_bytes
from workbench.quantize.packed_folder import is_packed_folder
from workbench.safetensors_header import read_folder_headers
from workbench.shell import build_shell, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.quantize.methods import Method

__all__ = ["load_model", "load_shell"]


def load_model(
    files: ModelFiles,
    *,
    device: str,
    dtype: str,
    attn_implementation: str | None = None,
    keep_packed: bool = False,
    quantization: QuantizationConfig | None = None,
    cache: QuantizationCache | None = None,
    method: Method | None = None,
    part: ModelPart | None = None,
    progress: ProgressCallback = no_progress,
) -> LoadedModel:
    """The model on torch device `device` ("cpu", "cuda:0") with weights in `dtype` ("fp32", "bf16", "fp16").

    `attn_implementation` is a name registered with transformers. `quantization` makes the matrices smaller as they are
    read, unless `cache` holds them so already, and `method` packs them in place of the type's own; a folder of
    quantised weights needs none. With `keep_packed` the weights of a .gguf file stay as they are (on the CPU), and
    ConfigError is raised for a model that has no such file. With `part` only that part of the model takes memory; its
    facts (`spec`) are still those of the whole.

    Raises `ModelFormatError`, `OutOfMemoryError` or whatever `progress` raises (`LoadCancelled`); after any of them,
    and after KeyboardInterrupt, the memory is given back even while the exception is kept.
    """
    dtype = parse_dtype(dtype)
    if keep_packed:
        load = _load_packed
    elif files.path is not None and is_packed_folder(files.path):
        load = partial(load_packed_model, asked=quantization)
    elif quantization is not None:
        load = partial(load_quantized, quantization=quantization, cache=cache, method=method)
    else:
        load = _load_random if files.source.kind == "random" else _load_folder
    with all_or_nothing(device):
        if part is not None:
            return _load_part(files, device, dtype, attn_implementation, part, progress)
        return load(files, device, dtype, attn_implementation, progress)


def load_shell(files: ModelFiles, *, dtype: str) -> LoadedModel:
    """The model's facts and tokenizer without its weights: the module lies on torch's meta device.

    Raises `ModelFormatError`.
    """
    dtype = parse_dtype(dtype)
    shell, tokenizer = _shell_of(files, dtype, None)
    return describe_loaded(shell, tokenizer, files, dtype, "meta")


def _shell_of(files: ModelFiles, dtype: str, attn_implementation: str | None) -> tuple[PreTrainedModel, Tokenizer]:
    from transformers import AutoConfig

    if files.source.kind == "random":
        return make_random_shell(files.source.location, dtype=dtype, attn_implementation=attn_implementation)
    permission = {"local_files_only": True, "trust_remote_code": files.trust_remote_code}
    tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
    with quiet_transformers(), blaming_files(files):
        config = AutoConfig.from_pretrained(str(files.path), **permission)
        return build_shell(config, torch_dtype(dtype), attn_implementation, files.trust_remote_code), tokenizer


def _load_part(
    files: ModelFiles,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    part: ModelPart,
    progress: ProgressCallback,
) -> LoadedModel:
    """Raises `ModelFormatError` for files that must be rearranged first: no part of them can be read by itself."""
    shell, tokenizer = _shell_of(files, dtype, attn_implementation)
    loaded = describe_loaded(shell, tokenizer, files, dtype, device)
    with quiet_transformers():
        if files.source.kind == "random":
            fill_randomly(shell, device, progress, part=part)
        else:
            tensors = read_folder_headers(files.folder)
            if not matches_shell(shell, tensors, torch_dtype(dtype)):
                raise ModelFormatError(
                    f"{files.name}: its files name or join their tensors in another way than transformers' class, so "
                    "that no part can be read by itself; load it whole, on one device or as copies (strategy 'data')"
                )
            check_fits(shell, tensors)
            part.narrow(shell)
            check_memory(part.device_bytes(shell), device, dtype)
            stream_weights(shell, tensors, device, progress, cut=part.cut)
    loaded.weight_bytes = part.device_bytes(shell)
    return loaded


def _load_random(
    files: ModelFiles, device: str, dtype: str, attn_implementation: str | None, progress: ProgressCallback
) -> LoadedModel:
    made = make_random_model(
        files.source.location,
        device=device,
        dtype=dtype,
        attn_implementation=attn_implementation,
        progress=progress,
    )
    return describe_loaded(made.module, made.tokenizer, files, dtype, device)


def _load_folder(
    files: ModelFiles, device: str, dtype: str, attn_implementation: str | None, progress: ProgressCallback
) -> LoadedModel:
    from transformers import AutoConfig

    progress(Progress("read config", 0, None, "files"))
    permission = {"local_files_only": True, "trust_remote_code": files.trust_remote_code}
    tensors = read_folder_headers(files.folder)
    tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
    with quiet_transformers():
        with blaming_files(files):
            config = AutoConfig.from_pretrained(str(files.path), **permission)
            shell = build_shell(config, torch_dtype(dtype), attn_implementation, files.trust_remote_code)
        check_memory(count_bytes(shell), device, dtype)
        if matches_shell(shell, tensors, torch_dtype(dtype)):
            check_fits(shell, tensors)
            stream_weights(shell, tensors, device, progress)
            module = shell
        else:
            progress(Progress("load weights", 0, None, "tensors"))
            module = load_by_rules(files, config, device, dtype, attn_implementation)
    return describe_loaded(module, tokenizer, files, dtype, device)


def _load_packed(
    files: ModelFiles, device: str, dtype: str, attn_implementation: str | None, progress: ProgressCallback
) -> LoadedModel:
    from transformers import AutoConfig

    if files.gguf_path is None or device != "cpu":
        raise ConfigError(
            f"quant_type='gguf' uses the packed weights of a .gguf file on the CPU: {files.name} on {device} has none; "
            "load 'default' or a .gguf file, or use quant_type='int4'"
        )
    progress(Progress("read config", 0, None, "files"))
    tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
    with quiet_transformers():
        with blaming_files(files):
            config = AutoConfig.from_pretrained(str(files.path), local_files_only=True)
            shell = build_shell(config, torch_dtype(dtype), attn_implementation)
        # Twice: the packed weights, and for a moment what torch's operators or the native kernels make of them.
        check_memory(2 * files.gguf_path.stat().st_size, device, dtype)
        num_parameters = fill_from_gguf(shell, files.gguf_path, torch_dtype(dtype), progress)
    loaded = describe_loaded(shell, tokenizer, files, dtype, device)
    loaded.spec = replace(loaded.spec, num_parameters=num_parameters, tied_embeddings=config.tie_word_embeddings)
    loaded.weight_bytes = storage_bytes(shell)
    return loaded
