"""The panel's choice as a code cell, a command line and a JSON file, to copy or to open again. Loads nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.part import Part
from workbench.carry_on import choice_from_text, choice_to_code, choice_to_command, choice_to_json
from workbench.errors import ConfigError
from workbench.session import LoadChoice
from workbench.twin import Twin

__all__ = ["CarryOnBox"]


class CarryOnBox(Part, anywidget.AnyWidget):
    """`show(choice)` puts a choice into all forms; `on_open(choice)` gets one that was pasted or opened."""

    _esm = module_text("carry_on_box")
    _css = style_text()

    code = traitlets.Unicode().tag(sync=True)
    command = traitlets.Unicode().tag(sync=True)
    json_text = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)

    def __init__(self, choice: LoadChoice | None = None, on_open: Callable[[LoadChoice], None] | None = None) -> None:
        self._on_open = on_open or (lambda choice: None)
        super().__init__()
        self.show(choice or LoadChoice())
        self.on_msg(self._receive)

    def show(self, choice: LoadChoice) -> None:
        """Write a choice in all forms."""
        with self.hold_sync():
            self.code, self.json_text = choice_to_code(choice), choice_to_json(choice)
            try:
                self.command = choice_to_command(choice)
            except ConfigError as error:
                self.command = f"# {error}"

    def take(self, text: str) -> LoadChoice:
        """Read a choice in any form and take it. Raises ConfigError that says what is wrong with it."""
        choice = choice_from_text(text)
        self._on_open(choice)
        self.show(choice)
        return choice

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("type") != "open":
            return
        try:
            self.take(str(content.get("text", "")))
            self.problem, self.said = "", "The choice was taken."
        except ConfigError as error:
            self.problem, self.said = str(error), ""

    def twin(self) -> Twin:
        """The code and the command."""
        return Twin("CarryOnBox", (("code", self.code), ("command", self.command)))
