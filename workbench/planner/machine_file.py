"""One small JSON file below the settings folder that several processes may write: read whole, replaced whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from filelock import FileLock

from workbench.paths import settings_folder

__all__ = ["MachineFile"]

_LOCK_TIMEOUT_S = 5.0


class MachineFile:
    """`name` is the file's name. What is damaged or of another kind reads as empty."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> dict[str, Any]:
        """The object in the file; {} when there is none."""
        try:
            content = json.loads((settings_folder() / self._name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def update(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Replace the content by what `change` makes of it. Raises OSError when it cannot be written, and
        filelock.Timeout when another process holds it for long."""
        folder = settings_folder()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / self._name
        with FileLock(f"{file}.lock", timeout=_LOCK_TIMEOUT_S):
            temporary = file.with_name(f"{self._name}.{os.getpid()}.part")
            temporary.write_text(json.dumps(change(self.read()), indent=1), "utf-8")
            temporary.replace(file)
