"""The code blocks of the documentation, with what is said about running them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]

# A comment right above a block says why it is not run here, or which test runs it.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|run by): (?P<said>[^\n]+?) -->\n)?"
    r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block. `mark` is "not run" (with the reason), "run by" (with the test's path), or None."""

    page: Path
    line: int
    language: str
    code: str
    mark: str | None
    said: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The command lines, continued ones joined."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page, text[: found.start("code")].count("\n"), found["language"], found["code"], found["mark"],
              found["said"] or "")
        for found in _BLOCK.finditer(text)
    ]  # fmt: skip


ALL_BLOCKS = [block for page in PAGES for block in blocks_of(page)]
