"""A model below `s3://bucket/prefix`: the cache entry that belongs to it, fetched again when it changed there."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from workbench.aws import S3Url, download_s3, make_client
from workbench.aws.s3_errors import reading_s3
from workbench.aws.s3_listing import list_objects
from workbench.errors import DownloadError
from workbench.models.cached_folder import CachedFolder, read_manifest
from workbench.paths import models_cache
from workbench.progress import ProgressCallback

__all__ = ["S3_PREFIX", "fetch_s3", "s3_folder"]

S3_PREFIX = "s3-"
_NUM_CONNECTIONS = 8


def s3_folder(url: S3Url, version: str | None = None) -> CachedFolder:
    """The cache entry of a url. `version` says what lies there; None takes whatever is in the cache."""
    stem = re.sub(r"[^\w.-]+", "-", url.name)[:60]
    digest = hashlib.sha256(str(url).encode()).hexdigest()[:10]
    name = f"{S3_PREFIX}{stem}-{digest}"
    if version is None:
        version = str((read_manifest(models_cache() / name) or {}).get("key", ""))
    return CachedFolder(models_cache(), name, version, label=str(url))


def fetch_s3(location: str, progress: ProgressCallback, *, client: Any = None) -> Path:
    """The folder of the model at `location` ("bucket/prefix"), downloaded where it is not here or has changed.

    A download that was stopped goes on where it was. Where S3 cannot be reached, what is here is used. Raises
    ConfigError, ModelNotFoundError, ModelFormatError, DownloadError, or what `progress` raises.
    """
    url = S3Url.parse(f"s3://{location}")
    try:
        with reading_s3(str(url)):
            client = client or make_client("s3", max_connections=_NUM_CONNECTIONS)
            objects = list_objects(client, url)
    except DownloadError:
        kept = s3_folder(url)
        if kept.is_ready():
            return kept.path
        raise
    listing = "\n".join(f"{each.key} {each.size_bytes} {each.etag}" for each in objects)
    folder = s3_folder(url, hashlib.sha256(listing.encode()).hexdigest())
    parts = models_cache() / ".s3-parts"
    return folder.ensure(
        lambda temporary: download_s3(url, temporary, client=client, progress=progress, parts_folder=parts), progress
    )
