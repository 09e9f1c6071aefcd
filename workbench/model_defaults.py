"""The choice that a user saved for each model: one JSON file under the settings folder."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from filelock import FileLock

from workbench.carry_on import choice_from_json, choice_to_json
from workbench.errors import ConfigError
from workbench.paths import settings_folder
from workbench.session_status import LoadChoice

__all__ = ["ModelDefaults"]


class ModelDefaults:
    """Saved choices by model name. Several processes may change the file at once."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The file, whether it is there or not."""
        return self._path or settings_folder() / "model_defaults.json"

    def get(self, model: str) -> LoadChoice | None:
        """What was saved for a model. Raises ConfigError when the file is damaged or cannot be read."""
        return self._read().get(model)

    def save(self, choice: LoadChoice) -> None:
        """Keep a choice for its model, in place of an earlier one. Raises ConfigError where it cannot be written."""
        self._change({choice.model: choice})

    def remove(self, model: str) -> None:
        """Forget what was saved for a model. Nothing happens where nothing was."""
        self._change({model: None})

    def _change(self, changes: dict[str, LoadChoice | None]) -> None:
        try:
            self._write(changes)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def _write(self, changes: dict[str, LoadChoice | None]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", timeout=10):
            kept = {model: choice for model, choice in {**self._read(), **changes}.items() if choice is not None}
            content = {model: json.loads(choice_to_json(choice)) for model, choice in kept.items()}
            # The rename puts it there whole.
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1, ensure_ascii=False)
            os.replace(temporary, self.path)

    def _read(self) -> dict[str, LoadChoice]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
            return {str(model): choice_from_json(json.dumps(saved)) for model, saved in content.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror or error}") from None
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{self.path}: {error}; restore it or remove it") from None
