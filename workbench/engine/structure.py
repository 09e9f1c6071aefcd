"""The form an answer must have, as plain text that can cross a process boundary. Knows no tokens and no compiler."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from workbench.errors import RequestError

__all__ = ["StructureKind", "StructureSpec"]

# A schema of this size compiles within a second; the API this follows allows less (120,000 characters).
MAX_STRUCTURE_CHARS = 256 * 1024


class StructureKind(enum.StrEnum):
    """The language a structure is written in."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    GRAMMAR = "grammar"


@dataclass(frozen=True)
class StructureSpec:
    """`text` is a JSON schema, a regular expression (as in Rust), a grammar (Lark or GBNF); empty for any object."""

    kind: StructureKind
    text: str = ""

    def __post_init__(self) -> None:
        kinds = ", ".join(kind.value for kind in StructureKind)
        if self.kind not in set(StructureKind):
            raise RequestError(f"structure.kind={self.kind!r}: must be one of {kinds}")
        object.__setattr__(self, "kind", StructureKind(self.kind))
        if not isinstance(self.text, str) or bool(self.text) == (self.kind is StructureKind.JSON_OBJECT):
            raise RequestError("structure.text: must be given for every kind but json_object")
        if len(self.text) > MAX_STRUCTURE_CHARS:
            raise RequestError(
                f"structure: {len(self.text)} characters are more than the {MAX_STRUCTURE_CHARS} allowed"
            )
