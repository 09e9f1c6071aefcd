"""A stream filter: ends an answer at a phrase, replaces phrases, and marks what was generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.plugins import BasePlugin, Filtered, PluginMetadata, StreamFilter, hookimpl

__all__ = ["StopPhrases", "plugin"]


class StopPhrases(StreamFilter):
    """Options of a request:

    stop: phrases, in any case of letters, at which the answer ends; unlike stop strings they match "The End" as "the
        end". The phrase itself is not shown.
    replace: phrase -> what is shown in its place.
    watermark: a text added after the answer's last piece, such as " [made by a model]".
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        unknown = sorted(set(options) - {"stop", "replace", "watermark"})
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not known; there are stop, replace and watermark")
        stop, replace = options.get("stop", []), options.get("replace", {})
        if not isinstance(stop, list) or not isinstance(replace, Mapping):
            raise ValueError("stop must be a list of texts, and replace an object of texts")
        for text in (*stop, *replace, *replace.values(), options.get("watermark", "")):
            if not isinstance(text, str):
                raise ValueError(f"{text!r} is not a text")
        if not all((*stop, *replace)):
            raise ValueError("a phrase must not be empty")
        self._watermark = options.get("watermark", "")
        # In small letters -> what takes its place; None ends the answer.
        self._phrases: dict[str, str | None] = {phrase.lower(): text for phrase, text in replace.items()}
        self._phrases |= {phrase.lower(): None for phrase in stop}
        self._held = ""

    def feed(self, text: str) -> Filtered:
        """Show what cannot be the beginning of a phrase any more."""
        self._held += text
        shown = ""
        while (found := self._first_phrase()) is not None:
            at, phrase = found
            shown += self._held[:at]
            self._held = self._held[at + len(phrase) :]
            replacement = self._phrases[phrase]
            if replacement is None:
                self._held = ""
                return Filtered(shown + self._watermark, stop=True, reason=phrase)
            shown += replacement
        safe = len(self._held) - self._num_held_back()
        shown, self._held = shown + self._held[:safe], self._held[safe:]
        return Filtered(shown)

    def finish(self) -> str:
        """What was held back, and the mark."""
        rest, self._held = self._held, ""
        return str(rest + self._watermark)

    def _first_phrase(self) -> tuple[int, str] | None:
        """Place and phrase of the first match; of two at one place the longer."""
        held = _lowered(self._held)
        found = [(held.find(phrase), -len(phrase), phrase) for phrase in self._phrases]
        found = [match for match in found if match[0] >= 0]
        return (min(found)[0], min(found)[2]) if found else None

    def _num_held_back(self) -> int:
        held = _lowered(self._held)
        longest = max(map(len, self._phrases), default=1)
        for length in range(min(longest - 1, len(held)), 0, -1):
            if any(phrase.startswith(held[-length:]) for phrase in self._phrases):
                return length
        return 0


def _lowered(text: str) -> str:
    """Small letters, as many as there were: some become two in small, and places would shift."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


class StopPhrasesPlugin(BasePlugin):
    metadata = PluginMetadata(
        name="stop-phrases",
        version="1.0.0",
        description="Ends an answer at a phrase, replaces phrases, marks what was generated.",
        permissions=("stream_filters",),
    )

    @hookimpl
    def register_stream_filters(self, register: Any) -> None:
        register("stop-phrases", StopPhrases, "options: stop, replace, watermark")


plugin = StopPhrasesPlugin()
