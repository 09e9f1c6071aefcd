"""Makes an index of the wheels in a folder, signed if there is a key. Reads what wheels say; runs nothing of them."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from workbench.errors import PluginError
from workbench.plugins.index import INDEX_NAME
from workbench.plugins.metadata import PluginMetadata
from workbench.plugins.signing import SigningKey
from workbench.plugins.wheel import file_sha256, wheel_identity

__all__ = ["write_index"]

_METADATA_NAME = "plugin.json"


def write_index(folder: Path, key: SigningKey | None = None) -> list[str]:
    """Write `folder`/index.json over all wheels in it that are plugins; gives "name version" of each.

    Raises PluginError when there is none, or one says something else inside than in its file's name.
    """
    entries = [_entry(wheel) for wheel in sorted(folder.glob("*.whl"))]
    if not entries:
        raise PluginError(f"{folder} has no wheels: build one with `pip wheel --no-deps -w {folder} PLUGIN_FOLDER`")
    if key is not None:
        for entry in entries:
            entry["signature"] = key.sign(entry)
    temporary = folder / f"{INDEX_NAME}.new"
    temporary.write_text(json.dumps({"format": 1, "plugins": entries}, indent=2) + "\n", "utf-8")
    os.replace(temporary, folder / INDEX_NAME)
    return [f"{entry['name']} {entry['version']}" for entry in entries]


def _entry(wheel: Path) -> dict[str, Any]:
    metadata = _metadata(wheel)
    name, version = wheel_identity(wheel.name)
    if (metadata.name, metadata.version) != (name, version):
        raise PluginError(f"{wheel.name}: its {_METADATA_NAME} says {metadata.name} {metadata.version}")
    return {
        "name": name,
        "version": version,
        "description": metadata.description,
        "author": metadata.author,
        "file": wheel.name,
        "sha256": file_sha256(wheel),
        "requires_workbench": metadata.requires_workbench,
        "requires": list(metadata.dependencies),
        "permissions": list(metadata.permissions),
    }


def _metadata(wheel: Path) -> PluginMetadata:
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if name.rpartition("/")[2] == _METADATA_NAME]
            if len(found) != 1:
                raise PluginError(f"{wheel.name} has {len(found)} files {_METADATA_NAME}; a plugin has one")
            return PluginMetadata.parse(json.loads(archive.read(found[0])))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise PluginError(f"{wheel.name} cannot be read: {error}") from error
