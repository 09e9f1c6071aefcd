"""What lies under an S3 url, as files with safe relative paths. Reads lists, no contents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from workbench.aws.s3_url import S3Url
from workbench.errors import ModelFormatError, ModelNotFoundError

__all__ = ["S3Object", "list_objects"]


@dataclass(frozen=True)
class S3Object:
    """One object. `path` is where it belongs below the url, never absolute and never with '..'."""

    key: str
    path: PurePosixPath
    size_bytes: int
    etag: str


def list_objects(client: Any, url: S3Url) -> list[S3Object]:
    """All objects below the url, in the order of their keys; a url that names one object gives that one.

    Raises ModelNotFoundError when there is nothing, ModelFormatError for keys that cannot be files here, and lets
    botocore's errors through.
    """
    prefix = f"{url.prefix}/" if url.prefix else ""
    found: list[S3Object] = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=url.bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            relative = entry["Key"][len(prefix) :]
            # Consoles mark a folder by an empty object whose key ends in a slash.
            if relative and not relative.endswith("/"):
                found.append(S3Object(entry["Key"], _safe_path(relative, url), entry["Size"], entry["ETag"].strip('"')))
    if not found and url.prefix:
        found = _single_object(client, url)
    if not found:
        raise ModelNotFoundError(f"{url}: nothing lies there")
    _check_tree(found, url)
    return found


def _single_object(client: Any, url: S3Url) -> list[S3Object]:
    from botocore.exceptions import ClientError

    try:
        head = client.head_object(Bucket=url.bucket, Key=url.prefix)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return []
        raise
    return [S3Object(url.prefix, _safe_path(url.name, url), head["ContentLength"], head["ETag"].strip('"'))]


def _safe_path(relative: str, url: S3Url) -> PurePosixPath:
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part or len(part.encode()) > 255 for part in parts):
        raise ModelFormatError(f"{url}: the key {relative!r} cannot be a file's path")
    return PurePosixPath(relative)


def _check_tree(objects: list[S3Object], url: S3Url) -> None:
    """A key may lie below another in S3; on a disk a name is a file or a folder."""
    paths = {entry.path for entry in objects}
    for entry in objects:
        for parent in entry.path.parents:
            if parent in paths:
                raise ModelFormatError(f"{url}: {str(parent)!r} is both an object and the prefix of others")
