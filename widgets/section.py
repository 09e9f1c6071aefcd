"""A part of the panel that can be folded away, with its title as a button. Knows nothing of what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import ipywidgets
import traitlets

from widgets.front_end import module_text, style_text
from widgets.part import Part
from workbench.twin import Twin

__all__ = ["Section"]


class SectionTitle(Part, anywidget.AnyWidget):
    """The button of a section; `on_toggle()` is called when it is pressed."""

    _esm = module_text("section_title")
    _css = style_text()

    title = traitlets.Unicode().tag(sync=True)
    is_open = traitlets.Bool(False).tag(sync=True)

    def __init__(self, title: str, on_toggle: Any) -> None:
        self._on_toggle = on_toggle
        super().__init__(title=title)
        self.on_msg(self._receive)

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("type") == "toggle":
            self._on_toggle()

    def twin(self) -> Twin:
        """The title."""
        return Twin(self.title)


class Section(Part, ipywidgets.VBox):
    """`parts` under a title, folded at first. Folded parts are not in the page, so they cost nothing there."""

    head: SectionTitle | None = None

    def __init__(self, title: str, parts: Sequence[ipywidgets.Widget], *, is_open: bool = False) -> None:
        self._folded = tuple(parts)
        self.head = SectionTitle(title, self.toggle)
        super().__init__([self.head])
        self.add_class("wb-section")
        if is_open:
            self.unfold()

    @property
    def is_open(self) -> bool:
        """Whether its parts are shown."""
        return self.head.is_open

    def unfold(self) -> None:
        """Show the parts."""
        self.head.is_open, self.children = True, (self.head, *self._folded)

    def fold(self) -> None:
        """Show the title only."""
        self.head.is_open, self.children = False, (self.head,)

    def toggle(self) -> None:
        """Open what is folded, fold what is open."""
        (self.fold if self.is_open else self.unfold)()

    def close(self) -> None:
        """Take title and box away; the parts are closed by whoever made them."""
        if self.head is not None:
            self.head.close()
        super().close()

    def twin(self) -> Twin:
        """The title."""
        return self.head.twin()
