"""Where plugins come from: an index, a name, and the buttons for what can be done with them. Does nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets

from widgets.part import Part
from workbench.twin import Twin

__all__ = ["PluginShelf"]

_ACTIONS = {
    "look": ("Look", "Show what the index offers; nothing of it is run"),
    "install": ("Install", "Get the plugin, checked and switched off"),
    "update": ("Update", "Get a newer version; of all installed plugins where no name is given"),
    "roll_back": ("Go back", "Use the version before again"),
    "remove": ("Remove", "Delete the installed plugin's files"),
}


class PluginShelf(Part, ipywidgets.VBox):
    """`act(action)` hears of a click; actions are look, install, update, roll_back and remove."""

    def __init__(self, act: Callable[[str], None]) -> None:
        self._index = ipywidgets.Text(description="Index", placeholder="a folder, a JSON file or a URL")
        self._name = ipywidgets.Combobox(description="Plugin", placeholder="its name", ensure_option=False)
        self._unsigned = ipywidgets.Checkbox(description="Also unsigned", value=False, indent=False)
        self._buttons = {}
        for action, (words, help_text) in _ACTIONS.items():
            self._buttons[action] = ipywidgets.Button(description=words, tooltip=help_text)
            self._buttons[action].on_click(lambda _, action=action: act(action))
        rows = ([self._index, self._name, self._unsigned], [*self._buttons.values()])
        super().__init__([ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in rows])

    @property
    def index(self) -> str:
        """Where to look; empty for what WORKBENCH_PLUGIN_INDEX says."""
        return self._index.value.strip()

    @property
    def name(self) -> str:
        """The plugin that is meant, or an empty text."""
        return self._name.value.strip()

    @property
    def allows_unsigned(self) -> bool:
        """Whether a plugin may be installed that nobody has signed."""
        return self._unsigned.value

    def offer(self, names: Sequence[str]) -> None:
        """Suggest these names."""
        self._name.options = tuple(names)

    def close(self) -> None:
        """Take it away with all its parts."""
        for row in self.children:
            for part in row.children:
                part.close()
            row.close()
        super().close()

    def twin(self) -> Twin:
        """Where it looks."""
        return Twin("PluginShelf", (("index", self.index or "none"),))
