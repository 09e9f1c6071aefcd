"""An object in words, as text and as a small table: for pages and runs without a front end. Knows no widget."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import ConfigError

__all__ = ["HasTwin", "Twin", "is_headless"]

_YES = ("1", "true", "yes", "on")
_NO = ("", "0", "false", "no", "off")


def is_headless(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `WORKBENCH_HEADLESS` asks for text in place of live widgets."""
    value = environment.get("WORKBENCH_HEADLESS", "").strip().lower()
    if value not in _YES + _NO:
        raise ConfigError(f"WORKBENCH_HEADLESS is {value!r}; use one of: {', '.join(_YES + _NO[1:])}")
    return value in _YES


@dataclass(frozen=True)
class Twin:
    """A title, labelled lines, and an optional `picture` (inline SVG, which must hold no text of others).

    Deterministic: no ids, times or machine facts belong in it.
    """

    title: str
    rows: tuple[tuple[str, str], ...] = ()
    picture: str = ""

    def as_text(self) -> str:
        """Title, then one indented line per row."""
        width = max((len(label) for label, _ in self.rows), default=0)
        return "\n".join([self.title, *(f"  {label:<{width}}  {value}" for label, value in self.rows)])

    def as_html(self) -> str:
        """A table without script or style sheet, every word escaped."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(label)}</th>'
            f'<td style="text-align:left;white-space:pre-wrap">{html.escape(value)}</td></tr>'
            for label, value in self.rows
        )
        caption = f'<caption style="text-align:left">{html.escape(self.title)}</caption>'
        return f"<table>{caption}{rows}</table>{self.picture}"


class HasTwin:
    """Mixin: shows its `twin()` as text in a terminal and as a small table on a page."""

    def twin(self) -> Twin:
        """The object in words, as it stands now."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.twin().as_text()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self.twin().as_html()}
