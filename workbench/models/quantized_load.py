"""Quantised models into memory: read matrix by matrix and made smaller at once, or as an earlier load left them."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.backends.dtypes import torch_dtype
from workbench.errors import CacheError, ConfigError, ModelFormatError
from workbench.models.files import ModelFiles
from workbench.models.load_memory import check_memory
from workbench.models.loaded_model import LoadedModel, QuantizedFacts, count_bytes, describe_loaded, is_tied
from workbench.models.random_model import make_random_model
from workbench.models.safetensors_header import read_folder_headers
from workbench.models.tokenizer import Tokenizer, load_tokenizer
from workbench.models.weight_reader import WeightReader
from workbench.models.weights import blaming_files, check_fits, load_by_rules, matches_shell, stream_weights
from workbench.progress import Progress, ProgressCallback
from workbench.quantize import QuantizationCache, QuantizationConfig
from workbench.quantize.memory import storage_bytes
from workbench.quantize.packed_folder import PackedManifest, load_packed, read_manifest, verify_packed
from workbench.shell import build_shell, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.quantize.methods import Method
    from workbench.quantize.streaming import StreamingQuantizer

__all__ = ["load_packed_model", "load_quantized", "source_facts"]

_log = logging.getLogger(__name__)


def load_quantized(
    files: ModelFiles,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
    *,
    quantization: QuantizationConfig,
    cache: QuantizationCache | None,
) -> LoadedModel:
    """The model with its matrices as `quantization` says; of the original never more than one is in memory.

    With `cache` a model that was quantised the same way before is taken from there, and one that was not is put there;
    a cache that cannot be written to is reported as a warning. Files whose weights must be rearranged first are the
    exception: they are loaded whole and then quantised.
    """
    from workbench.quantize.methods import choose_method

    method = choose_method(quantization, device.partition(":")[0])
    source = source_facts(files)
    packs = getattr(method, "packs", False)
    if not packs or files.path is None or files.trust_remote_code:
        cache = None
    if cache is not None:
        found = cache.find(files.name, quantization, dtype=dtype, source=source, verify=False)
        if found is not None:
            progress(Progress("read quantised weights", 0, None))
            try:
                return _read(files, found.folder, found.manifest, device, attn_implementation, progress, True)
            except ModelFormatError as error:
                _log.warning("%s; it is dropped and made again", error)
                cache.remove(found.folder.name)
    started = time.perf_counter()
    if not packs:
        load = _by_apply
    else:
        load = _from_random if files.path is None else _from_folder
    loaded = load(files, device, dtype, attn_implementation, progress, quantization, method)
    assert loaded.quantized is not None
    loaded.quantized = replace(loaded.quantized, elapsed_s=time.perf_counter() - started)
    if cache is not None:
        progress(Progress("keep quantised weights", 0, None))
        try:
            cache.store(files.name, loaded.module, manifest_of(loaded, source), files.path)
        except CacheError as error:
            _log.warning("the quantised weights of %s are not kept: %s", files.name, error)
    return loaded


def load_packed_model(
    files: ModelFiles,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
    *,
    asked: QuantizationConfig | None,
) -> LoadedModel:
    """A folder of quantised weights. Raises ConfigError when `asked` is another quantisation than the one it holds, and
    ModelFormatError when it is damaged."""
    manifest = read_manifest(files.folder)
    if asked is not None and asked != manifest.config:
        raise ConfigError(
            f"{files.path} holds weights as {manifest.config.quantization_type.value} with its own settings; leave "
            "quant_type out, or quantise the original model"
        )
    return _read(files, files.folder, manifest, device, attn_implementation, progress, False)


def manifest_of(loaded: LoadedModel, source: dict[str, object]) -> PackedManifest:
    """What a folder of these quantised weights says of itself."""
    quantized = loaded.quantized
    assert quantized is not None
    return PackedManifest(
        config=quantized.config,
        dtype=loaded.dtype,
        records=(),
        kept_layers=quantized.kept_layers,
        source=source,
        original_bytes=quantized.original_bytes,
        num_parameters=loaded.spec.num_parameters,
        tied_embeddings=loaded.spec.tied_embeddings,
    )


def source_facts(files: ModelFiles) -> dict[str, object]:
    """What tells one version of a model's files from another: name, revision, and each weight file's size and time."""
    facts: dict[str, object] = {"model": files.source.text, "revision": files.source.revision}
    if files.path is not None:
        paths = sorted([*files.path.glob("*.safetensors"), files.path / "config.json"])
        facts["files"] = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
    return facts


def _read(
    files: ModelFiles,
    folder: Path,
    manifest: PackedManifest,
    device: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
    from_cache: bool,
) -> LoadedModel:
    started = time.perf_counter()
    total_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    check_memory(total_bytes, device, manifest.config.quantization_type.value)
    completed_bytes = 0

    def report(num_bytes: int) -> None:
        nonlocal completed_bytes
        completed_bytes += num_bytes
        progress(Progress("read quantised weights", min(completed_bytes, total_bytes), total_bytes))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="workbench-checksum") as pool:
        # The checksum is known before the model is handed out, and computed while the rest is done.
        check = pool.submit(verify_packed, folder, manifest)
        tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
        module = load_packed(
            folder,
            manifest,
            device=device,
            attn_implementation=attn_implementation,
            trust_remote_code=files.trust_remote_code,
            on_bytes=report,
        )
        check.result()
    facts = QuantizedFacts(
        manifest.config, manifest.kept_layers, manifest.original_bytes, time.perf_counter() - started, from_cache
    )
    shape = (manifest.num_parameters, manifest.tied_embeddings)
    return _describe(module, tokenizer, files, manifest.dtype, device, shape, facts)


@dataclass(frozen=True)
class _Begun:
    """Facts of the unquantised shell, and what takes its matrices; `shape` is its number of weights, and whether its
    embeddings are tied."""

    shape: tuple[int, bool]
    original_bytes: int
    quantizer: StreamingQuantizer


def _from_random(
    files: ModelFiles,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
    quantization: QuantizationConfig,
    method: Method,
) -> LoadedModel:
    begun: list[_Begun] = []

    def begin(shell: PreTrainedModel) -> StreamingQuantizer:
        begun.append(_begin(shell, device, quantization, method))
        return begun[0].quantizer

    made = make_random_model(
        files.source.location,
        device=device,
        dtype=dtype,
        attn_implementation=attn_implementation,
        progress=progress,
        quantizer_for=begin,
    )
    return _end(made.module, made.tokenizer, files, dtype, device, quantization, method, begun[0])


def _from_folder(
    files: ModelFiles,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
    quantization: QuantizationConfig,
    method: Method,
) -> LoadedModel:
    from transformers import AutoConfig

    from workbench.quantize.plain_attention import plain_attention
    from workbench.quantize.samples import sample_ids

    progress(Progress("read config", 0, None, "files"))
    tensors = read_folder_headers(files.folder)
    tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
    with quiet_transformers():
        with blaming_files(files):
            config = AutoConfig.from_pretrained(
                str(files.path), local_files_only=True, trust_remote_code=files.trust_remote_code
            )
            shell = build_shell(config, torch_dtype(dtype), attn_implementation, files.trust_remote_code)
        if not matches_shell(shell, tensors, torch_dtype(dtype)):
            check_memory(count_bytes(shell), device, dtype)
            progress(Progress("load weights", 0, None, "tensors"))
            module = load_by_rules(files, config, device, dtype, attn_implementation)
            return _whole(module, tokenizer, files, dtype, device, quantization, method)
        check_fits(shell, tensors)
        begun = _begin(shell, device, quantization, method, can_refine=True)
        quantizer = begun.quantizer
        stream_weights(shell, tensors, device, progress, quantizer)
        quantizer.finish()
        if quantizer.can_refine:
            progress(Progress("look at what layers see", 0, None))
            with WeightReader(device) as reader, plain_attention(shell.eval().requires_grad_(False)):
                quantizer.refine(
                    lambda name: reader.read(tensors[name], torch_dtype(dtype)), sample_ids(shell, tokenizer, None)
                )
    return _end(shell, tokenizer, files, dtype, device, quantization, method, begun)


def _by_apply(
    files: ModelFiles,
    device: str,
    dtype: str,
    attn_implementation: str | None,
    progress: ProgressCallback,
    quantization: QuantizationConfig,
    method: Method,
) -> LoadedModel:
    """A method that takes a whole model, such as a plugin's: its weights are unknown here, and are not kept."""
    if files.path is None:
        made = make_random_model(
            files.source.location,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            progress=progress,
        )
        module, tokenizer = made.module, made.tokenizer
    else:
        module, tokenizer = _load_whole(files, device, dtype, attn_implementation, progress)
    shape, original_bytes = (sum(p.numel() for p in module.parameters()), is_tied(module)), count_bytes(module)
    kept = method.apply(module.eval().requires_grad_(False), quantization, ())
    facts = QuantizedFacts(quantization, tuple(kept or ()), original_bytes, 0.0)
    return _describe(module, tokenizer, files, dtype, device, shape, facts)


def _load_whole(
    files: ModelFiles, device: str, dtype: str, attn_implementation: str | None, progress: ProgressCallback
) -> tuple[PreTrainedModel, Tokenizer]:
    from transformers import AutoConfig

    tensors = read_folder_headers(files.folder)
    tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
    with quiet_transformers(), blaming_files(files):
        config = AutoConfig.from_pretrained(
            str(files.path), local_files_only=True, trust_remote_code=files.trust_remote_code
        )
        shell = build_shell(config, torch_dtype(dtype), attn_implementation, files.trust_remote_code)
    check_memory(count_bytes(shell), device, dtype)
    with quiet_transformers():
        if not matches_shell(shell, tensors, torch_dtype(dtype)):
            return load_by_rules(files, config, device, dtype, attn_implementation), tokenizer
        stream_weights(shell, tensors, device, progress)
    return shell, tokenizer


def _begin(
    shell: PreTrainedModel, device: str, quantization: QuantizationConfig, method: Method, *, can_refine: bool = False
) -> _Begun:
    """Checks that the result fits."""
    from workbench.quantize.streaming import StreamingQuantizer, quantized_bytes

    check_memory(quantized_bytes(shell, quantization, device), device, quantization.quantization_type.value)
    num_parameters = sum(parameter.numel() for parameter in shell.parameters())
    quantizer = StreamingQuantizer(shell, quantization, method, can_refine=can_refine)
    return _Begun((num_parameters, is_tied(shell)), count_bytes(shell), quantizer)


def _end(
    module: PreTrainedModel,
    tokenizer: Tokenizer,
    files: ModelFiles,
    dtype: str,
    device: str,
    quantization: QuantizationConfig,
    method: Method,
    begun: _Begun,
) -> LoadedModel:
    kept = begun.quantizer.finish()
    kept = (*kept, *_calibrate(module, tokenizer, quantization, method))
    facts = QuantizedFacts(quantization, kept, begun.original_bytes, 0.0)
    return _describe(module, tokenizer, files, dtype, device, begun.shape, facts)


def _whole(
    module: PreTrainedModel,
    tokenizer: Tokenizer,
    files: ModelFiles,
    dtype: str,
    device: str,
    quantization: QuantizationConfig,
    method: Method,
) -> LoadedModel:
    """Quantise a model that is in memory already."""
    from workbench.quantize.layers import quantize_layers

    shape, original_bytes = (sum(p.numel() for p in module.parameters()), is_tied(module)), count_bytes(module)
    module.eval().requires_grad_(False)
    kept = quantize_layers(module, quantization, method, ())
    kept = (*kept, *_calibrate(module, tokenizer, quantization, method))
    facts = QuantizedFacts(quantization, kept, original_bytes, 0.0)
    return _describe(module, tokenizer, files, dtype, device, shape, facts)


def _calibrate(
    module: PreTrainedModel, tokenizer: Tokenizer, quantization: QuantizationConfig, method: Method
) -> tuple[str, ...]:
    if not method.needs_samples:
        return ()
    from workbench.quantize.plain_attention import plain_attention
    from workbench.quantize.samples import sample_ids

    module.eval().requires_grad_(False)
    with plain_attention(module):
        return method.finish(module, quantization, sample_ids(module, tokenizer, None))


def _describe(
    module: PreTrainedModel,
    tokenizer: Tokenizer,
    files: ModelFiles,
    dtype: str,
    device: str,
    shape: tuple[int | None, bool],
    facts: QuantizedFacts,
) -> LoadedModel:
    loaded = describe_loaded(module, tokenizer, files, dtype, device)
    num_parameters, tied = shape
    loaded.spec = replace(loaded.spec, num_parameters=num_parameters, tied_embeddings=tied)
    loaded.weight_bytes = storage_bytes(module)
    loaded.quantized = facts
    return loaded
