"""Where caches and settings live. Reads the environment at each call, creates nothing by itself."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["home", "models_cache", "native_cache", "settings_folder"]


def home() -> Path:
    """The root of everything this package stores: `WORKBENCH_HOME`, or the platform's cache folder."""
    configured = os.environ.get("WORKBENCH_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    return user_cache_path("workbench", appauthor=False)


def models_cache() -> Path:
    """Folder that holds one converted or downloaded model per sub-folder."""
    return home() / "models"


def native_cache() -> Path:
    """Folder that holds one build of the CPU's kernels per sub-folder."""
    return home() / "native"


def settings_folder() -> Path:
    """Folder of small settings files: saved defaults, calibration."""
    return home() / "settings"
