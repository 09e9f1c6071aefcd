"""The presets of this user: those that come with the program, and those saved in one file under the settings folder."""

from __future__ import annotations

import builtins
import os
import tempfile
from pathlib import Path

from filelock import FileLock

from workbench.conversation.preset import Preset, export_presets, import_presets
from workbench.errors import ConfigError
from workbench.paths import settings_folder

__all__ = ["BUILT_IN_PRESETS", "PresetShelf", "default_preset_shelf"]

BUILT_IN_PRESETS = (
    Preset("Precise", {"temperature": 0.0, "max_tokens": 512}, note="always the likeliest token; repeatable"),
    Preset("Balanced", {"temperature": 0.7, "top_p": 0.9, "max_tokens": 512}, note="varied, and rarely off the track"),
    Preset(
        "Creative",
        {"temperature": 1.1, "min_p": 0.05, "repetition_penalty": 1.05, "max_tokens": 1024},
        note="many ways to say it; unlikely tokens are cut off by min-p",
    ),
    Preset("Short", {"temperature": 0.3, "top_p": 0.9, "max_tokens": 96}, "Answer in one or two sentences."),
)


class PresetShelf:
    """Presets by name. Several processes may change the file at once."""

    def __init__(self, path: Path, built_in: tuple[Preset, ...] = BUILT_IN_PRESETS) -> None:
        self.path = path
        self._built_in = built_in

    def list(self) -> builtins.list[Preset]:
        """Built-in ones first, then saved ones by name. Raises ConfigError when the file is damaged."""
        return [*self._built_in, *sorted(self._saved(), key=lambda preset: preset.name.casefold())]

    def get(self, name: str) -> Preset:
        """The preset of that name. Raises ConfigError that lists the names there are."""
        presets = self.list()
        found = next((preset for preset in presets if preset.name == name), None)
        if found is None:
            raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(p.name for p in presets)}")
        return found

    def system_after(self, name: str, system: str | None) -> str | None:
        """The system prompt once a preset is chosen: its own; without one, what was written stays, and what came with
        another preset goes. Raises ConfigError for no such name."""
        preset = self.get(name)
        if preset.system is not None or not system:
            return preset.system
        return None if any(other.system == system.strip() for other in self.list()) else system

    def is_built_in(self, name: str) -> bool:
        """Whether it comes with the program, and so can be neither replaced nor removed."""
        return any(preset.name == name for preset in self._built_in)

    def save(self, *presets: Preset) -> None:
        """Store presets, in place of saved ones of the same names. Raises ConfigError for a built-in one's name."""
        for preset in presets:
            if self.is_built_in(preset.name):
                raise ConfigError(f"{preset.name!r} is a built-in preset: choose another name")
        names = {preset.name for preset in presets}
        with self._locked():
            self._write([*(preset for preset in self._saved() if preset.name not in names), *presets])

    def remove(self, name: str) -> None:
        """Forget a saved preset. Raises ConfigError for a built-in or unknown one."""
        if self.is_built_in(name):
            raise ConfigError(f"{name!r} is a built-in preset and stays")
        with self._locked():
            self.get(name)
            self._write([preset for preset in self._saved() if preset.name != name])

    # `list` is a method in here.
    def _saved(self) -> builtins.list[Preset]:
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return []
        try:
            return import_presets(text)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}; restore it or remove it") from None

    def _locked(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.path}.lock", timeout=10)

    def _write(self, presets: builtins.list[Preset]) -> None:
        # The rename puts it there whole.
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(export_presets(presets))
        os.replace(temporary, self.path)


def default_preset_shelf() -> PresetShelf:
    """The presets of this user."""
    return PresetShelf(settings_folder() / "presets.json")
