"""An index of plugins: a JSON file in a folder or at a URL, and the wheels beside it. Reads; runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from workbench.errors import PluginError
from workbench.plugins.metadata import PluginMetadata

__all__ = ["INDEX_NAME", "IndexEntry", "PluginIndex", "read_index"]

INDEX_NAME = "index.json"
_FORMAT = 1
_MAX_INDEX_BYTES = 8 * 1024**2
_MAX_WHEEL_BYTES = 512 * 1024**2
_TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class IndexEntry:
    """One version of one plugin. `values` is the entry as it was read, which is what a signature covers."""

    metadata: PluginMetadata
    file: str
    sha256: str
    values: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def version(self) -> str:
        return self.metadata.version


@dataclass(frozen=True)
class PluginIndex:
    """What an index offers. `listed` are names without anything to install, as a bare list of names has them."""

    source: str
    entries: tuple[IndexEntry, ...]
    listed: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*(entry.name for entry in self.entries), *self.listed})

    def versions(self, name: str) -> list[IndexEntry]:
        """The versions of one plugin, newest first."""
        from packaging.version import Version

        found = [entry for entry in self.entries if entry.name == name]
        return sorted(found, key=lambda entry: Version(entry.version), reverse=True)

    def fetch(self, entry: IndexEntry, target: Path) -> None:
        """Put the entry's file at `target`. What it holds is not looked at. Raises PluginError."""
        if _is_url(self.source):
            base = self.source.rpartition("/")[0] if self.source.endswith(".json") else self.source.rstrip("/")
            target.write_bytes(_download(f"{base}/{entry.file}", _MAX_WHEEL_BYTES))
            return
        folder = _index_file(self.source).parent
        try:
            target.write_bytes((folder / entry.file).read_bytes())
        except OSError as error:
            raise PluginError(
                f"plugin {entry.name}: {entry.file} cannot be read ({error.strerror or error})"
            ) from error


def read_index(source: str) -> PluginIndex:
    """The index in a folder, a JSON file or at a URL. Raises PluginError for one that is damaged."""
    if _is_url(source):
        url = source if source.endswith(".json") else f"{source.rstrip('/')}/{INDEX_NAME}"
        text = _download(url, _MAX_INDEX_BYTES)
    else:
        try:
            text = _index_file(source).read_bytes()
        except OSError as error:
            raise PluginError(f"{source} is no index of plugins ({error.strerror or error})") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise PluginError(f"{source} is no index of plugins: {error}") from error
    return _parse(source, content)


def _parse(source: str, content: Any) -> PluginIndex:
    plugins = content.get("plugins") if isinstance(content, dict) else None
    if not isinstance(plugins, list):
        raise PluginError(f"{source} is no index of plugins: it has no list 'plugins'")
    if all(isinstance(name, str) for name in plugins):
        return PluginIndex(source, (), tuple(plugins))
    if content.get("format") != _FORMAT:
        raise PluginError(f"{source} has format {content.get('format')!r}; this workbench reads format {_FORMAT}")
    return PluginIndex(source, tuple(_entry(source, values) for values in plugins))


def _entry(source: str, values: Any) -> IndexEntry:
    if not isinstance(values, dict):
        raise PluginError(f"{source}: an entry must be an object, got {values!r}")
    metadata = PluginMetadata.parse(
        {
            "name": values.get("name"),
            "version": values.get("version"),
            "description": values.get("description", ""),
            "author": values.get("author", ""),
            "requires_workbench": values.get("requires_workbench", ""),
            "dependencies": values.get("requires", []),
            "permissions": values.get("permissions", []),
        }
    )
    file, sha256 = values.get("file"), values.get("sha256")
    # A name and no path: an index reaches nothing but what lies beside it.
    if (
        not isinstance(file, str)
        or not file.endswith(".whl")
        or {"/", "\\", "\0", "?", "#"} & set(file)
        or ".." in file
    ):
        raise PluginError(f"plugin {metadata.name}: file {file!r} must be the name of a wheel beside the index")
    if not isinstance(sha256, str) or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise PluginError(f"plugin {metadata.name}: sha256 must be 64 hexadecimal digits")
    return IndexEntry(metadata, file, sha256, values)


def _index_file(source: str) -> Path:
    path = Path(source).expanduser()
    return path / INDEX_NAME if path.is_dir() else path


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _download(url: str, max_bytes: int) -> bytes:
    import httpx

    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise PluginError(f"{url}: an index on another machine is only read over https")
    content = bytearray()
    try:
        # Redirects could lead anywhere, also to plain http.
        with httpx.stream("GET", url, timeout=_TIMEOUT_S, follow_redirects=False) as response:
            if response.status_code != 200:
                raise PluginError(f"{url}: the server answered {response.status_code}")
            for block in response.iter_bytes():
                content += block
                if len(content) > max_bytes:
                    raise PluginError(f"{url}: it is larger than {max_bytes // 1024**2} MiB")
    except httpx.HTTPError as error:
        raise PluginError(f"{url} cannot be read: {error}") from error
    return bytes(content)
