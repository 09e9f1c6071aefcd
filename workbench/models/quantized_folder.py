"""Writes a model quantised: into a folder or an S3 address of the user's that loads like any other model, or into the
cache."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.aws.s3_upload import upload_s3
from workbench.aws.s3_url import S3Url
from workbench.errors import CacheError, ConfigError
from workbench.models.catalogue import Catalogue
from workbench.models.loaded_model import LoadedModel
from workbench.models.loader import load_model
from workbench.models.quantized_load import manifest_of, source_facts
from workbench.progress import Progress, ProgressCallback, no_progress
from workbench.quantize import QuantizationCache, QuantizationConfig
from workbench.quantize.packed_folder import save_packed

__all__ = ["QuantizedFolder", "quantize_to_folder"]


@dataclass(frozen=True)
class QuantizedFolder:
    """Where quantised weights lie (a folder, or an address in S3) and what came of them; bytes are those in memory.

    `elapsed_s` is the time that quantising took, or reading where `from_cache`.
    """

    path: Path | S3Url
    config: QuantizationConfig
    original_bytes: int
    quantized_bytes: int
    kept_layers: tuple[str, ...]
    elapsed_s: float
    from_cache: bool


def quantize_to_folder(
    model: str | os.PathLike[str],
    config: QuantizationConfig,
    out: str | os.PathLike[str] | None = None,
    *,
    dtype: str = "bf16",
    device: str = "cpu",
    cache: QuantizationCache | None = None,
    catalogue: Catalogue | None = None,
    s3_client: Any = None,
    progress: ProgressCallback = no_progress,
) -> QuantizedFolder:
    """Quantise `model` and write it to the folder `out`, which must not exist or be empty; None writes to the cache.

    `out` may also be an address like "s3://bucket/prefix": the files are made here and sent there, those that lie there
    already with the same bytes excepted. `s3_client` is boto3's, if not the default one. `dtype` is the precision that
    it will compute in. A folder appears whole or not at all. Raises what loading raises, ConfigError for a model or
    folder that cannot be used, CacheError where the disk does not take it, WorkbenchError where S3 does not.
    """
    if isinstance(out, str) and out.startswith("s3://"):
        url = S3Url.parse(out)
        with tempfile.TemporaryDirectory(prefix="workbench-quantized-") as folder:
            made = quantize_to_folder(
                model,
                config,
                Path(folder) / "model",
                dtype=dtype,
                device=device,
                cache=cache,
                catalogue=catalogue,
                progress=progress,
            )
            upload_s3(Path(folder) / "model", url, client=s3_client, progress=progress)
        return replace(made, path=url)
    target = None if out is None else Path(out).expanduser().absolute()
    if target is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"out={str(target)!r}: is there already and is not an empty folder")
    files = (catalogue or Catalogue()).resolve(model, progress=progress)
    if files.path is None:
        raise ConfigError(f"{files.name} has no files: its weights are made in memory each time")
    cache = cache or QuantizationCache()
    loaded = load_model(
        files,
        device=device,
        dtype=dtype,
        quantization=config,
        cache=cache if target is None else None,
        progress=progress,
    )
    source = source_facts(files)
    if target is None:
        entry = cache.find(files.name, config, dtype=loaded.dtype, source=source)
        # Loading only warns when the cache took nothing; here that is the whole point.
        target = (
            entry.folder if entry else cache.store(files.name, loaded.module, manifest_of(loaded, source), files.path)
        )
    else:
        progress(Progress("write quantised weights", 0, None))
        _write(loaded, source, target)
    quantized = loaded.quantized
    # Loaded with a quantisation, and what is in the cache was written with its original's size.
    assert quantized is not None and quantized.original_bytes is not None
    return QuantizedFolder(
        target,
        config,
        quantized.original_bytes,
        loaded.weight_bytes,
        quantized.kept_layers,
        quantized.elapsed_s,
        quantized.from_cache,
    )


def _write(loaded: LoadedModel, source: dict[str, object], target: Path) -> None:
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        save_packed(loaded.module, manifest_of(loaded, source), temporary, loaded.files.path)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise CacheError(f"cannot write to {target} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
