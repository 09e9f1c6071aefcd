"""Fills a bare decoder, which needs none of transformers' model classes, from a folder or a .gguf file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from workbench.backends.dtypes import parse_dtype, torch_dtype
from workbench.errors import ConfigError
from workbench.models.bare_config import BareConfig
from workbench.models.files import ModelFiles
from workbench.models.gguf_weights import fill_from_gguf
from workbench.models.load_memory import all_or_nothing, check_memory
from workbench.models.loaded_model import LoadedModel, count_bytes, describe_loaded
from workbench.models.tokenizer import load_tokenizer
from workbench.models.weights import check_fits, names_match, stream_weights
from workbench.progress import Progress, ProgressCallback, no_progress
from workbench.quantize.memory import storage_bytes
from workbench.safetensors_header import read_folder_headers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_bare_model"]


def load_bare_model(
    files: ModelFiles,
    config: BareConfig,
    *,
    dtype: str,
    keep_packed: bool = False,
    progress: ProgressCallback = no_progress,
) -> LoadedModel | None:
    """The weights of `files` on the CPU in a module that cannot compute; None where the files name them in another way.

    `keep_packed`, errors and what they leave behind are as in `load_model`.
    """
    dtype = parse_dtype(dtype)
    with all_or_nothing("cpu"):
        progress(Progress("read config", 0, None, "files"))
        loaded = (_load_packed if keep_packed else _load_folder)(files, config, dtype, progress)
    if loaded is not None:
        loaded.is_bare = True
    return loaded


def _load_folder(files: ModelFiles, config: BareConfig, dtype: str, progress: ProgressCallback) -> LoadedModel | None:
    from workbench.models.bare_decoder import BareDecoder

    tensors = read_folder_headers(files.folder)
    # It has all that loading looks at in a transformers model.
    shell = cast("PreTrainedModel", BareDecoder(config, torch_dtype(dtype)))
    if not names_match(shell, tensors):
        return None
    tokenizer = load_tokenizer(files.folder)
    check_memory(count_bytes(shell), "cpu", dtype)
    check_fits(shell, tensors)
    stream_weights(shell, tensors, "cpu", progress)
    return describe_loaded(shell, tokenizer, files, dtype, "cpu")


def _load_packed(files: ModelFiles, config: BareConfig, dtype: str, progress: ProgressCallback) -> LoadedModel:
    from workbench.models.bare_decoder import BareDecoder

    if files.gguf_path is None:
        raise ConfigError(
            f"quant_type='gguf' uses the packed weights of a .gguf file: {files.name} has none; load 'default' or a "
            ".gguf file, or use quant_type='int4'"
        )
    shell = cast("PreTrainedModel", BareDecoder(config, torch_dtype(dtype)))
    tokenizer = load_tokenizer(files.folder)
    # Twice: the packed weights, and for a moment what the native kernels make of them.
    check_memory(2 * files.gguf_path.stat().st_size, "cpu", dtype)
    num_parameters = fill_from_gguf(shell, files.gguf_path, torch_dtype(dtype), progress)
    loaded = describe_loaded(shell, tokenizer, files, dtype, "cpu")
    loaded.spec = replace(loaded.spec, num_parameters=num_parameters, tied_embeddings=config.tie_word_embeddings)
    loaded.weight_bytes = storage_bytes(shell)
    return loaded
