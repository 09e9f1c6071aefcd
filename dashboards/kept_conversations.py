"""`KeptConversations`: what one browser keeps, over all of its tabs. Knows no page."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.conversation import archive_of_texts

__all__ = ["KeptConversations"]

# What a browser keeps for one site is about 5 MB.
_MAX_STORED_CHARS = 2_000_000


class KeptConversations:
    """Texts of conversations by their id, newest change first. Of one that two tabs change the last change counts."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def take(self, texts: Mapping[str, str]) -> None:
        """Those that a browser brings; what is here already is newer."""
        self._texts = {**self._texts, **{name: text for name, text in texts.items() if name not in self._texts}}

    def put(self, conversation_id: str, text: str) -> None:
        """One that has changed."""
        others = {name: one for name, one in self._texts.items() if name != conversation_id}
        self._texts = {conversation_id: text, **others}

    def remove(self, conversation_id: str) -> None:
        """One that was deleted; unknown ones are ignored."""
        self._texts.pop(conversation_id, None)

    def text(self) -> str:
        """All of them for the browser to keep, or as many as fit, the newest before the others."""
        fitting, num_chars = [], 0
        for text in self._texts.values():
            if num_chars + len(text) <= _MAX_STORED_CHARS:
                fitting.append(text)
                num_chars += len(text)
        return archive_of_texts(fitting) if fitting else ""
