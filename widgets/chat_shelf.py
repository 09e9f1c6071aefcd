"""The conversations of one chat, newest first, and the one that is open. Knows no widget."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.conversation import Conversation, Message
from workbench.errors import RequestError

__all__ = ["ChatShelf"]


class ChatShelf:
    """There is always an open conversation. One without a message is kept only while it is open."""

    def __init__(self, system: str | None = None) -> None:
        self.current = Conversation(system)
        self._all = [self.current]

    @property
    def names(self) -> list[tuple[str, str]]:
        """Id and title of each."""
        return [(one.conversation_id, one.title or "New chat") for one in self._all]

    @property
    def all(self) -> list[Conversation]:
        """Those of `names`."""
        return list(self._all)

    def put(self, conversations: Iterable[Conversation]) -> None:
        """Take conversations in, in place of those with the same id, and open the first of them."""
        for one in reversed(list(conversations)):
            self._all = [one, *(kept for kept in self._all if kept.conversation_id != one.conversation_id)]
            self.current = one
        self._drop_empty()

    def begin(self) -> None:
        """A new conversation with the same system prompt, unless the open one is still empty."""
        if self.current.all_messages:
            self.put([Conversation(self.current.system)])

    def open(self, conversation_id: str) -> None:
        """Raises RequestError for one that is not there."""
        found = next((one for one in self._all if one.conversation_id == conversation_id), None)
        if found is None:
            raise RequestError("that conversation is not here any more")
        self.current = found
        self._drop_empty()

    def open_with(self, message: Message) -> None:
        """Open the conversation that a message is in. Raises RequestError if there is none."""
        for one in (self.current, *self._all):
            if any(known is message for known in one.all_messages):
                self.open(one.conversation_id)
                return
        raise RequestError("that reply is of an earlier conversation: it is not in the chat any more")

    def forget(self) -> None:
        """Drop the open conversation, and open the newest of the others, or an empty one."""
        dropped = self.current
        self._all = [one for one in self._all if one is not dropped] or [Conversation(dropped.system)]
        self.current = self._all[0]

    def _drop_empty(self) -> None:
        self._all = [one for one in self._all if one is self.current or one.all_messages]
