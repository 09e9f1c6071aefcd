"""The stream filters of one answer: its text on the way out, piece by piece. Knows chunks, not who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from workbench.engine.messages import Chunk
from workbench.engine.sequence import FinishReason
from workbench.plugins import Filtered, PluginManager

__all__ = ["AnswerFilters"]


@dataclass(frozen=True)
class _Part:
    plugin: str
    name: str
    work: Any


class AnswerFilters:
    """Filters in the order of the request; each gets what the one before lets through."""

    def __init__(self, manager: PluginManager, parts: list[_Part]) -> None:
        self._manager = manager
        self._parts = parts
        self.is_stopped = False
        self._stop_reason: str | None = None

    @classmethod
    def of(cls, manager: PluginManager | None, wanted: Mapping[str, Mapping[str, object]]) -> AnswerFilters | None:
        """New filters for the names in `wanted` that are stream filters; None where there are none."""
        if manager is None or not wanted:
            return None
        parts = []
        for name, options in wanted.items():
            found = manager.at("stream_filters").get(name)
            if found is None:
                continue
            work = manager.attempt(found.plugin, f"filter {name}", partial(found.value, dict(options)), None)
            if work is not None:
                parts.append(_Part(found.plugin, name, work))
        return cls(manager, parts) if parts else None

    def apply(self, chunk: Chunk) -> Chunk:
        """The chunk as its reader gets it. After a filter has stopped the answer no text follows."""
        is_last = chunk.finish_reason is not None
        text = ""
        if not self.is_stopped:
            text = self._through(0, chunk.text, is_last)
        if not is_last or not self.is_stopped or chunk.error is not None:
            return replace(chunk, text=text)
        return replace(chunk, text=text, finish_reason=FinishReason.STOP, stop_reason=self._stop_reason)

    def _through(self, first: int, text: str, is_last: bool) -> str:
        """What comes out after the filters from number `first` on."""
        for number in range(first, len(self._parts)):
            part = self._parts[number]
            result = self._feed(part, text)
            text = result.text
            if result.stop:
                self.is_stopped, self._stop_reason = True, result.reason
                # The ones behind it hear no more, so they give what they hold.
                is_last = True
            elif is_last:
                text += self._finish(part)
        return text

    def _feed(self, part: _Part, text: str) -> Filtered:
        result = self._manager.attempt(part.plugin, f"filter {part.name}", partial(_fed, part.work, text), None)
        if result is None:
            # What it holds is asked for once; then the text goes by it.
            rest = self._finish(part)
            self._parts = [other for other in self._parts if other is not part]
            return Filtered(rest + text)
        return result

    def _finish(self, part: _Part) -> str:
        return self._manager.attempt(part.plugin, f"filter {part.name}", partial(_finished, part.work), "")


def _fed(work: Any, text: str) -> Filtered:
    given = work.feed(text)
    result = given if isinstance(given, Filtered) else Filtered(given)
    if not isinstance(result.text, str):
        raise TypeError(f"feed() gave {type(result.text).__name__}, not a text")
    return result


def _finished(work: Any) -> str:
    rest = work.finish()
    if not isinstance(rest, str):
        raise TypeError(f"finish() gave {type(rest).__name__}, not a text")
    return rest
