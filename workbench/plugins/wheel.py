"""A plugin's wheel: checked without running any of it, then unpacked by pip into a folder of its own."""

from __future__ import annotations

import hashlib
import hmac
import stat
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from workbench.errors import PluginError, PluginVerificationError
from workbench.plugins.index import IndexEntry

__all__ = ["check_wheel", "file_sha256", "unpack_wheel", "wheel_identity"]

_MAX_UNPACKED_BYTES = 2 * 1024**3
_MAX_FILES = 20_000
_PIP_TIMEOUT_S = 120
_MAX_WORDS = 600


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wheel_identity(file_name: str) -> tuple[str, str]:
    """Name (with dashes) and version in a wheel's file name. Raises PluginError for no wheel's name."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        name, version, _, _ = parse_wheel_filename(file_name)
    except InvalidWheelFilename as error:
        raise PluginError(str(error)) from error
    return str(name), str(version)


def check_wheel(path: Path, entry: IndexEntry) -> None:
    """Raise PluginVerificationError when the file is not what the index says, or would write outside of its folder."""
    from packaging.version import Version

    found = file_sha256(path)
    if not hmac.compare_digest(found, entry.sha256):
        raise PluginVerificationError(
            f"plugin {entry.name} {entry.version}: its SHA-256 is {found}, and the index says {entry.sha256}"
        )
    name, version = wheel_identity(path.name)
    if name != entry.name or Version(version) != Version(entry.version):
        raise PluginVerificationError(f"plugin {entry.name} {entry.version}: its file is {name} {version}")
    _check_members(path, entry.name)


def unpack_wheel(path: Path, folder: Path) -> None:
    """Have pip unpack the wheel into `folder`: nothing is downloaded, no dependency installed, no code of it run."""
    options = ["--no-index", "--no-deps", "--only-binary=:all:", "--no-compile", "--no-warn-conflicts"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--isolated", "--no-cache-dir"]
    command = [sys.executable, "-m", "pip", "install", *quiet, *options, "--target", str(folder), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise PluginError(f"{path.name}: pip took longer than {_PIP_TIMEOUT_S} s") from None
    if done.returncode:
        raise PluginError(f"{path.name}: pip refused it: {done.stderr.strip()[-_MAX_WORDS:]}")


def _check_members(path: Path, name: str) -> None:
    try:
        members = zipfile.ZipFile(path).infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise PluginVerificationError(f"plugin {name}: {path.name} is no wheel ({error})") from error
    if len(members) > _MAX_FILES or sum(member.file_size for member in members) > _MAX_UNPACKED_BYTES:
        raise PluginVerificationError(f"plugin {name}: {path.name} is too large unpacked")
    for member in members:
        inside = PurePosixPath(member.filename)
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if inside.is_absolute() or ".." in inside.parts or "\\" in member.filename or is_link:
            raise PluginVerificationError(f"plugin {name}: {path.name} holds {member.filename!r}, which leads outside")
        # Scripts, headers and data files would go to places that are not the plugin's own.
        if inside.parts and inside.parts[0].endswith(".data"):
            raise PluginVerificationError(f"plugin {name}: {path.name} holds {member.filename!r}; only modules may be")
