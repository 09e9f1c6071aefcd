"""What the installed torch was built for, read from its files: importing it takes seconds and 200 MB."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["read_torch_build"]


def read_torch_build() -> Any:
    """An object whose `version` has torch's own `cuda` and `hip`; None where it must be asked itself, or is there
    already."""
    if "torch" in sys.modules:
        return None
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        return None
    found = runpy.run_path(str(file))
    if not {"cuda", "hip"} <= found.keys():
        return None
    return SimpleNamespace(version=SimpleNamespace(cuda=found["cuda"], hip=found["hip"]))
