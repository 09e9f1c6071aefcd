"""`KeptConversations`: what one browser keeps, over all of its tabs. Knows no page."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.conversation import Conversation, export_conversations

__all__ = ["KeptConversations"]

# What a browser keeps for one site is about 5 MB.
_MAX_STORED_CHARS = 2_000_000


class KeptConversations:
    """Conversations by their id, newest change first. Of one that two tabs change the last change counts."""

    def __init__(self) -> None:
        self._by_id: dict[str, Conversation] = {}

    def take(self, conversations: Iterable[Conversation]) -> None:
        """Those that a browser brings; what is here already is newer."""
        for conversation in conversations:
            self._by_id.setdefault(conversation.conversation_id, conversation)

    def put(self, conversation: Conversation) -> None:
        """One that has changed."""
        name = conversation.conversation_id
        self._by_id = {name: conversation, **{key: one for key, one in self._by_id.items() if key != name}}

    def remove(self, conversation_id: str) -> None:
        """One that was deleted; unknown ones are ignored."""
        self._by_id.pop(conversation_id, None)

    def text(self) -> str:
        """All of them for the browser to keep, or as many of the newest as fit."""
        kept = [conversation for conversation in self._by_id.values() if conversation.all_messages]
        while kept:
            text = export_conversations(kept)
            if len(text) <= _MAX_STORED_CHARS:
                return text
            kept.pop()
        return ""
