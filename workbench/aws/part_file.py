"""A file that arrives in parts, in any order, over several attempts. Knows the disk, nothing of where bytes come from.

<name>.data     the file at its full size, with holes
<name>.parts    first line: what it will be; then the numbers of finished parts, one a line
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Part", "PartFile"]


@dataclass(frozen=True)
class Part:
    """Bytes `start` up to `end`, the latter excluded."""

    number: int
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Length of the part."""
        return self.end - self.start


class PartFile:
    """One such file. `identity` (an ETag) tells which contents it is of: parts of others are thrown away.

    Different parts may be written from different threads.
    """

    def __init__(self, base: Path, identity: str, size_bytes: int, part_bytes: int) -> None:
        self.path = base.with_name(base.name + ".data")
        self._journal = base.with_name(base.name + ".parts")
        self._header = json.dumps({"identity": identity, "size_bytes": size_bytes, "part_bytes": part_bytes})
        self.size_bytes = size_bytes
        starts = range(0, size_bytes, part_bytes)
        self._parts = [Part(i, start, min(start + part_bytes, size_bytes)) for i, start in enumerate(starts)]

    def open(self) -> list[Part]:
        """Make the file ready and give the parts that are still missing."""
        finished = self._finished()
        if finished is None:
            self.discard()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as file:
                file.truncate(self.size_bytes)
            self._journal.write_text(self._header + "\n", "utf-8")
            finished = set()
        return [part for part in self._parts if part.number not in finished]

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at their place."""
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(descriptor)

    def finish(self, part: Part) -> None:
        """Remember that all bytes of the part are there."""
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{part.number}\n")

    def discard(self) -> None:
        """Delete everything of it."""
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def move_to(self, target: Path) -> None:
        """Put the complete file in its place and forget the rest."""
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.path, target)
        self._journal.unlink(missing_ok=True)

    def _finished(self) -> set[int] | None:
        """Numbers of finished parts, None when there is nothing to go on with."""
        try:
            lines = self._journal.read_text("utf-8").splitlines()
            if not lines or lines[0] != self._header or self.path.stat().st_size != self.size_bytes:
                return None
        except (OSError, UnicodeDecodeError):
            return None
        # A line cut by a crash is a part that counts as missing.
        return {int(line) for line in lines[1:] if line.isdigit() and int(line) < len(self._parts)}
