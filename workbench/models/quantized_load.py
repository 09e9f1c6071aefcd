"""Quantised models into memory: made smaller while they are loaded, or as an earlier load left them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import CacheError, ConfigError, ModelFormatError
from workbench.models.files import ModelFiles
from workbench.models.load_memory import check_memory
from workbench.models.loaded_model import LoadedModel, QuantizedFacts, describe_loaded
from workbench.models.quantizing_load import QuantizingLoad, describe_quantized
from workbench.models.tokenizer import load_tokenizer
from workbench.progress import Progress, ProgressCallback
from workbench.quantize import QuantizationCache, QuantizationConfig
from workbench.quantize.packed_folder import PackedManifest, load_packed, packed_reader, read_manifest

if TYPE_CHECKING:
    from workbench.quantize.methods import Method

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
    method: Method | None = None,
) -> LoadedModel:
    """The model with its matrices as `quantization` says; of the original never more than one is in memory.

    `method` packs them; None takes the one that goes by that name. With `cache` a model that was quantised the same way
    before is taken from there, and one that was not is put there; a cache that cannot be written to is reported as a
    warning. Files whose weights must be rearranged first are the exception: they are loaded whole and then quantised.
    """
    from workbench.quantize.methods import choose_method

    method = method or choose_method(quantization, device.partition(":")[0])
    source = source_facts(files)
    # A plugin's method need not be of our class.
    if getattr(method, "cache_name", None):
        source["kept_by"] = method.cache_name
    if not getattr(method, "packs", False) or files.path is None or files.trust_remote_code:
        cache = None
    if cache is not None:
        found = cache.find(files.name, quantization, dtype=dtype, source=source, verify=False)
        if found is not None:
            progress(Progress("read quantised weights", 0, None))
            try:
                return _read(files, found.folder, found.manifest, device, attn_implementation, progress, True, method)
            except ModelFormatError as error:
                _log.warning("%s; it is dropped and made again", error)
                cache.remove(found.folder.name)
    loaded = QuantizingLoad(files, device, dtype, attn_implementation, progress, quantization, method).run()
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
    method: Method | None = None,
) -> LoadedModel:
    started = time.perf_counter()
    total_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    check_memory(total_bytes, device, manifest.config.quantization_type.value)
    completed_bytes = 0

    def report(num_bytes: int) -> None:
        nonlocal completed_bytes
        completed_bytes += num_bytes
        progress(Progress("read quantised weights", min(completed_bytes, total_bytes), total_bytes))

    # What takes Python's time is done while the weights are being read.
    with packed_reader(folder, manifest, device) as reader:
        tokenizer = load_tokenizer(files.folder, trust_remote_code=files.trust_remote_code)
        module = load_packed(
            folder,
            manifest,
            reader,
            device=device,
            attn_implementation=attn_implementation,
            trust_remote_code=files.trust_remote_code,
            on_bytes=report,
            more_kinds=getattr(method, "weight_kinds", {}),
        )
    facts = QuantizedFacts(
        manifest.config, manifest.kept_layers, manifest.original_bytes, time.perf_counter() - started, from_cache
    )
    loaded = describe_loaded(module, tokenizer, files, manifest.dtype, device)
    return describe_quantized(loaded, manifest.num_parameters, manifest.tied_embeddings, facts)
