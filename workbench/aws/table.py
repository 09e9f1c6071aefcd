"""A table of words for people: as text, and as HTML in a notebook. Knows nothing of what is in it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Rows that all have the same columns, and lines that stand below them."""

    rows: Sequence[Mapping[str, str]]
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """Column names in order; empty without rows."""
        return [*self.rows[0]] if self.rows else []

    def __str__(self) -> str:
        lines = [self.columns, *([row[column] for column in self.columns] for row in self.rows)] if self.rows else []
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(line.rstrip() for line in padded), *self.notes])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(row[column])}</td>" for column in self.columns) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
