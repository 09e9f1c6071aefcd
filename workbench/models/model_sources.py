"""Kinds of model names beyond files and the hub, "scheme:location": S3, and what plugins bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workbench.errors import ModelFormatError
from workbench.plugins import default_plugins, hookimpl
from workbench.plugins.registry import Contribution
from workbench.progress import ProgressCallback

__all__ = ["fetch_from", "find_source"]


def find_source(text: str) -> tuple[str, str] | None:
    """Scheme and location of a name like "s3://bucket/prefix" or "scheme:name"; None where no source has the scheme."""
    scheme, colon, location = text.partition(":")
    if not colon or not scheme.replace("-", "").replace("_", "").isalnum():
        return None
    return (scheme, location.removeprefix("//")) if _source(scheme) is not None else None


def fetch_from(scheme: str, location: str, progress: ProgressCallback) -> Path:
    """The folder that a source gives for a location. Raises what that raises, and ModelFormatError for no folder."""
    found = _source(scheme)
    assert found is not None, scheme
    path = found.value(location, progress)
    if not isinstance(path, str | Path) or not Path(path).is_dir():
        raise ModelFormatError(f"{scheme}:{location}: its source ({found.plugin}) gave {path!r}, which is no folder")
    return Path(path).absolute()


def _source(scheme: str) -> Contribution | None:
    return default_plugins().lookup("model_sources", scheme, _BUILT_IN)


def _fetch_s3(location: str, progress: ProgressCallback) -> Path:
    from workbench.models.s3_model import fetch_s3

    return fetch_s3(location, progress)


class _BuiltIn:
    @hookimpl
    def register_model_sources(self, register: Callable[..., None]) -> None:
        register("s3", _fetch_s3, "s3://bucket/prefix")


_BUILT_IN = _BuiltIn()
