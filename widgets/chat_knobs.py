"""How a chat's next reply is asked for, as its widget shows and changes it: system prompt, sampling, presets."""

from __future__ import annotations

import threading
from typing import Any

import anywidget
import traitlets

from widgets.chat_settings import ChatSettings
from workbench.conversation import Conversation

__all__ = ["ChatKnobs"]


class ChatKnobs(anywidget.AnyWidget):
    """The part of a chat widget that holds its settings. The widget has the conversation, the settings and a lock."""

    system = traitlets.Unicode().tag(sync=True)
    settings = traitlets.List().tag(sync=True)
    preset = traitlets.Unicode().tag(sync=True)
    # The one that was chosen before something was changed; then `preset` is "".
    changed_preset = traitlets.Unicode().tag(sync=True)
    presets = traitlets.List(traitlets.Unicode()).tag(sync=True)

    _settings: ChatSettings
    _lock: threading.RLock

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings in use, by name."""
        return dict(self._settings.sampling)

    def choose_preset(self, name: str) -> None:
        """Use a preset: its sampling, and its system prompt; where it has none, what was written stays. Raises
        ConfigError for no such name."""
        with self._lock:
            self.conversation.system = self._settings.take(name, self.conversation.system)
            self.show_settings()
            self._measure()

    def set_sampling(self, name: str, value: Any) -> None:
        """Change one sampling setting. Raises RequestError, and nothing changes."""
        with self._lock:
            self._settings.set(name, value)
            self.show_settings()

    def save_preset(self, name: str) -> None:
        """Keep the settings and the system prompt as a preset. Raises ConfigError for a built-in one's name."""
        with self._lock:
            self._settings.save_as(name, self.conversation.system)
            self.show_settings()

    def remove_preset(self, name: str) -> None:
        """Forget a saved preset. Raises ConfigError for a built-in or unknown one."""
        with self._lock:
            self._settings.remove(name)
            self.show_settings()

    def set_system(self, text: str) -> None:
        """Change the system prompt; empty is none."""
        with self._lock:
            self.conversation.system = text.strip() or None
            self.show_settings()
            self._measure()

    def show_settings(self) -> None:
        """Show the page the settings as they are, whatever it has in its fields."""
        self._settings.compare(self.conversation.system)
        with self.hold_sync():
            self.system = self.conversation.system or ""
            self.settings = self._settings.as_view()
            self.presets = self._settings.preset_names()
            self.preset, self.changed_preset = self._settings.preset, self._settings.changed_preset

    @property
    def conversation(self) -> Conversation:
        """The chat whose system prompt it is."""
        raise NotImplementedError

    def _measure(self) -> None:
        """Count the next prompt's tokens, which a system prompt is among."""
        raise NotImplementedError
