"""From files to a model that can run: checks memory, streams the weights, gives everything back when it fails."""

from __future__ import annotations

import gc
import json
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from workbench.backends.dtypes import parse_dtype, torch_dtype
from workbench.errors import ModelFormatError, WorkbenchError
from workbench.models.files import ModelFiles
from workbench.models.load_memory import check_memory, release_memory
from workbench.models.random_model import make_random_model
from workbench.models.safetensors_header import TensorEntry, read_folder_headers
from workbench.models.shell import build_shell, place, quiet_transformers, restore_buffers
from workbench.models.spec import ModelSpec
from workbench.models.tokenizer import Tokenizer, load_tokenizer
from workbench.models.weight_reader import READABLE_DTYPES, WeightReader
from workbench.progress import Progress, ProgressCallback, no_progress

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["LoadedModel", "load_model"]


@dataclass
class LoadedModel:
    """A model in memory, ready to run: evaluation mode, no gradients.

    `weight_bytes` counts tied weights once; `generation_defaults` is what the model's author suggests for sampling.
    """

    module: nn.Module
    spec: ModelSpec
    tokenizer: Tokenizer
    files: ModelFiles
    dtype: str
    device: str
    weight_bytes: int
    eos_token_ids: frozenset[int]
    generation_defaults: dict[str, Any] = field(default_factory=dict)


def load_model(
    files: ModelFiles,
    *,
    device: str,
    dtype: str,
    attn_implementation: str | None = None,
    progress: ProgressCallback = no_progress,
) -> LoadedModel:
    """The model on torch device `device` ("cpu", "cuda:0") with weights in `dtype` ("fp32", "bf16", "fp16").

    `attn_implementation` is a name registered with transformers. Raises `ModelFormatError`, `OutOfMemoryError`
    or whatever `progress` raises (`LoadCancelled`); after any of them, and after KeyboardInterrupt, the memory is
    given back even while the exception is kept.
    """
    dtype = parse_dtype(dtype)
    try:
        if files.source.kind == "random":
            return _load_random(files, device, dtype, attn_implementation, progress)
        return _load_folder(files, device, dtype, attn_implementation, progress)
    except BaseException as error:
        # A notebook keeps the last exception, and its frames would keep the tensors.
        _forget_frames(error)
        gc.collect()
        release_memory(device)
        raise


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
    return _loaded(made.module, made.tokenizer, files, dtype, device)


def _load_folder(
    files: ModelFiles, device: str, dtype: str, attn_implementation: str | None, progress: ProgressCallback
) -> LoadedModel:
    from transformers import AutoConfig

    progress(Progress("read config", 0, None, "files"))
    tensors = read_folder_headers(files.path)
    tokenizer = load_tokenizer(files.path, trust_remote_code=files.trust_remote_code)
    config = AutoConfig.from_pretrained(
        str(files.path), local_files_only=True, trust_remote_code=files.trust_remote_code
    )
    with quiet_transformers():
        shell = build_shell(config, torch_dtype(dtype), attn_implementation, files.trust_remote_code)
        check_memory(_num_bytes(shell), device, dtype)
        if _maps_one_to_one(shell, tensors, torch_dtype(dtype)):
            _stream_weights(shell, tensors, device, progress)
            module = shell
        else:
            module = _from_pretrained(files, config, device, dtype, attn_implementation, progress)
    return _loaded(module, tokenizer, files, dtype, device)


def _maps_one_to_one(shell: PreTrainedModel, tensors: dict[str, TensorEntry], dtype: torch.dtype) -> bool:
    """Whether the files hold exactly the shell's tensors under its names, so that nothing needs rearranging."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    if getattr(shell.config, "quantization_config", None) is not None or shell._get_dtype_plan(dtype):
        return False
    if any(isinstance(rule, WeightConverter) for rule in get_model_conversion_mapping(shell)):
        return False
    wanted = _wanted_tensors(shell)
    if not wanted.keys() <= tensors.keys():
        return False
    return all(
        tuple(tensor.shape) == tensors[name].shape and tensors[name].dtype in READABLE_DTYPES
        for name, tensor in wanted.items()
    )


def _wanted_tensors(shell: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters (tied ones once) and the buffers that are saved."""
    wanted: dict[str, torch.Tensor] = dict(shell.named_parameters())
    saved = shell.state_dict(keep_vars=True)
    return wanted | {name: buffer for name, buffer in shell.named_buffers() if name in saved}


def _stream_weights(
    shell: PreTrainedModel, tensors: dict[str, TensorEntry], device: str, progress: ProgressCallback
) -> None:
    wanted = _wanted_tensors(shell)
    # File order reads the disk forward.
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
            place(shell, entry.name, reader.read(entry, wanted[entry.name].dtype))
    restore_buffers(shell, device)


def _from_pretrained(
    files: ModelFiles,
    config: PretrainedConfig,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
) -> PreTrainedModel:
    """transformers' own way, for files that it must rename, merge or unpack. Refuses to fill gaps at random."""
    from transformers import AutoModelForCausalLM

    progress(Progress("load weights", 0, None, "tensors"))
    failure = None
    try:
        module, info = AutoModelForCausalLM.from_pretrained(
            str(files.path),
            config=config,
            dtype=torch_dtype(dtype),
            attn_implementation=attn_implementation,
            device_map={"": device} if device != "cpu" else None,
            use_safetensors=None if files.allow_pickle else True,
            trust_remote_code=files.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except WorkbenchError:
        raise
    # Boundary: the model's files decide which of transformers' many errors comes out.
    except Exception as error:
        failure = f"{files.path} cannot be loaded: {type(error).__name__}: {error}"
    if failure:
        raise ModelFormatError(failure)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelFormatError(f"{files.path} lacks {len(missing)} of the model's tensors, first {missing[0]!r}")
    return module


def _loaded(module: PreTrainedModel, tokenizer: Tokenizer, files: ModelFiles, dtype: str, device: str) -> LoadedModel:
    module.eval().requires_grad_(False)
    spec = ModelSpec.from_config(module.config)
    return LoadedModel(
        module=module,
        spec=replace(
            spec,
            architecture=type(module).__name__,
            num_parameters=sum(parameter.numel() for parameter in module.parameters()),
            tied_embeddings=_is_tied(module),
        ),
        tokenizer=tokenizer,
        files=files,
        dtype=dtype,
        device=device,
        weight_bytes=_num_bytes(module),
        eos_token_ids=tokenizer.eos_token_ids,
        generation_defaults=_generation_defaults(files),
    )


def _is_tied(module: PreTrainedModel) -> bool:
    embeddings, head = module.get_input_embeddings(), module.get_output_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embeddings, "weight", None)


def _num_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, tied ones once."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _generation_defaults(files: ModelFiles) -> dict[str, Any]:
    path = files.path / "generation_config.json" if files.path else None
    if path is None or not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{path} is not JSON: {error}") from error


def _forget_frames(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
