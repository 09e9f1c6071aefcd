"""How a chat samples: a preset and what was changed since, checked before it is used. Knows no widget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from workbench.conversation import Preset, PresetShelf, default_preset_shelf
from workbench.engine import SamplingParams
from workbench.errors import RequestError

__all__ = ["SHOWN_SETTINGS", "ChatSettings"]

# Those with a field of their own in the panel: name, label, step, least, most.
SHOWN_SETTINGS = (
    ("temperature", "Temperature", 0.05, 0, 100),
    ("top_p", "Top-p", 0.01, 0.01, 1),
    ("top_k", "Top-k", 1, 0, None),
    ("min_p", "Min-p", 0.01, 0, 1),
    ("repetition_penalty", "Repetition penalty", 0.01, 0.01, 100),
    ("max_tokens", "Longest reply, tokens", 1, 1, None),
    ("seed", "Seed (empty: random)", 1, None, None),
)
_INTEGERS = frozenset({"top_k", "max_tokens", "seed"})


class ChatSettings:
    """Sampling settings of a chat, by name as `SamplingParams` has them.

    `preset` is the one that they are, "" for none; `changed_preset` the one that they were before something changed.
    """

    def __init__(self, sampling: Mapping[str, Any], shelf: PresetShelf | None = None) -> None:
        self._shelf = shelf or default_preset_shelf()
        self.preset = self.changed_preset = ""
        self.sampling = dict(sampling)
        SamplingParams.from_options(self.sampling)

    def preset_names(self) -> list[str]:
        """Presets that can be chosen, built-in ones first."""
        return [preset.name for preset in self._shelf.list()]

    def take(self, name: str, system: str | None) -> str | None:
        """Use a preset's sampling; gives the system prompt to go on with. Raises ConfigError for an unknown name."""
        preset, system = self._shelf.get(name), self._shelf.system_after(name, system)
        self.preset, self.changed_preset = preset.name, ""
        self.sampling = dict(preset.sampling)
        return system

    def compare(self, system: str | None) -> None:
        """Note whether settings and system prompt are still, or again, those of the preset that was chosen."""
        name = self.preset or self.changed_preset
        preset = next((preset for preset in self._shelf.list() if preset.name == name), None)
        if preset is None:
            self.preset = self.changed_preset = ""
            return
        is_same = Preset(name, self.sampling).params == preset.params and preset.system in (None, system)
        self.preset, self.changed_preset = (name, "") if is_same else ("", name)

    def set(self, name: str, value: Any) -> None:
        """Change one setting; None takes its default. Raises RequestError, and nothing changes."""
        known = {field.name for field in fields(SamplingParams)}
        if name not in known:
            raise RequestError(f"unknown sampling parameter {name!r}")
        if name in _INTEGERS and isinstance(value, float) and value.is_integer():
            value = int(value)
        changed = {**self.sampling, name: value}
        if value is None and name != "max_tokens":
            del changed[name]
        SamplingParams.from_options(changed)
        self.sampling = changed

    def save_as(self, name: str, system: str | None) -> None:
        """Keep the settings and the system prompt as a preset. Raises ConfigError for a built-in one's name."""
        self._shelf.save(Preset(name, self.sampling, system))
        self.preset, self.changed_preset = name.strip(), ""

    def remove(self, name: str) -> None:
        """Forget a saved preset. Raises ConfigError for a built-in or unknown one."""
        self._shelf.remove(name)

    def as_view(self) -> list[dict[str, Any]]:
        """The shown settings with their values, as JSON values."""
        defaults = SamplingParams()
        return [
            {
                "name": name,
                "label": label,
                "step": step,
                "least": least,
                "most": most,
                "value": self.sampling.get(name, getattr(defaults, name)),
            }
            for name, label, step, least, most in SHOWN_SETTINGS
        ]
