"""What one open page works on: its conversations, the replies that run, what is selected. Knows no components.

Everything happens on the app's event loop, so nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dashboards.kept_conversations import KeptConversations
from dashboards.running_reply import RunningReply
from dashboards.sources import ChatAsk, ChatSource
from dashboards.toolbox import Toolbox
from workbench.conversation import Conversation, Message, ScoredToken, conversation_text, import_conversations
from workbench.errors import ConfigError, RequestError

__all__ = ["Desk", "Desks"]

_MAX_CONVERSATIONS = 100
# A browser that comes back after so many others brings what it has kept itself.
_MAX_BROWSERS = 1000


class Desk:
    """The conversations of one page. There is always a current one."""

    def __init__(self) -> None:
        self.conversations: list[Conversation] = [Conversation()]
        # Those that may be other than this tab has kept or found them last, and how that was.
        self._touched: set[str] = set()
        self._kept_texts: dict[str, str] = {}
        self._in_browser = ""
        self.current = self.conversations[0]
        self.selected: int | None = None
        # The conversation that was deleted last.
        self.deleted: Conversation | None = None
        self.others: dict[str, RunningReply] = {}
        # What the heat map shows: tokens, the reply they are of with its conversation (None: a text of the user's), the
        # chosen one.
        self.scored: tuple[ScoredToken, ...] = ()
        self.scored_reply: tuple[Conversation, Message] | None = None
        self.scored_index: int | None = None
        # Changes that the last plan proposed, as arguments of `plan`.
        self.advice: list[dict[str, Any]] = []
        # Shared with the other tabs of the same browser.
        self.kept = KeptConversations()
        self._replies: dict[str, RunningReply] = {}
        self.is_closed = False

    @property
    def current(self) -> Conversation:
        """The conversation that is shown. Only this one is changed, and those whose reply runs on."""
        return self._current

    @current.setter
    def current(self, conversation: Conversation) -> None:
        self._current = conversation
        self._touched.add(conversation.conversation_id)

    @property
    def reply(self) -> RunningReply | None:
        """The reply that runs in the current conversation."""
        return self.reply_of(self.current)

    @property
    def num_running(self) -> int:
        """Replies that run, of all conversations and comparisons."""
        return sum(reply.is_running for reply in (*self._replies.values(), *self.others.values()))

    def reply_of(self, conversation: Conversation) -> RunningReply | None:
        """The reply that runs in a conversation."""
        reply = self._replies.get(conversation.conversation_id)
        return reply if reply is not None and reply.is_running else None

    def selected_message(self) -> Message | None:
        """The message that buttons act on: the one that was clicked, else the last one."""
        path = self.current.messages
        return next((m for m in path if m.number == self.selected), path[-1] if path else None)

    def selected_reply(self) -> Message | None:
        """The selected message if it is a reply, else the last reply."""
        message = self.selected_message()
        if message is not None and message.role == "assistant":
            return message
        return next((m for m in reversed(self.current.messages) if m.role == "assistant"), None)

    def open(self, conversation_id: str) -> None:
        """Make a conversation the current one."""
        found = next((c for c in self.conversations if c.conversation_id == conversation_id), None)
        if found is None:
            raise RequestError("that conversation is not here any more")
        self.current, self.selected = found, None

    def scored_place(self) -> tuple[Conversation, Message]:
        """The reply in the heat map, with its conversation. Raises RequestError if either is not here any more."""
        if self.scored_reply is not None:
            conversation, reply = self.scored_reply
            # Another one may bear its number by now.
            is_here = any(one is conversation for one in self.conversations)
            if is_here and any(one is reply for one in conversation.all_messages):
                return conversation, reply
        raise RequestError("the reply that the heat map shows is not here any more: score another one.")

    def new(self, system: str | None = None) -> Conversation:
        """Begin a conversation, unless the current one is still empty."""
        if self.current.all_messages:
            self.put(Conversation(system))
        self.selected = None
        return self.current

    def put(self, *conversations: Conversation) -> None:
        """Take conversations in, in place of those with the same id, and make the last one current."""
        if len(self.conversations) + len(conversations) > _MAX_CONVERSATIONS:
            raise RequestError(f"there are {len(self.conversations)} conversations already: delete some")
        for conversation in conversations:
            before = next((c for c in self.conversations if c.conversation_id == conversation.conversation_id), None)
            if before is not None:
                self._stop(before)
                self.conversations.remove(before)
            self.conversations.insert(0, conversation)
            # Kept anew, also where the same was here before and was deleted.
            self._kept_texts.pop(conversation.conversation_id, None)
            self.current, self.selected = conversation, None

    def delete(self) -> None:
        """Forget the current conversation. The last one can be brought back."""
        self._stop(self.current)
        self.deleted = self.current if self.current.all_messages else self.deleted
        self.conversations.remove(self.current)
        self.kept.remove(self.current.conversation_id)
        if not self.conversations:
            self.conversations.append(Conversation())
        self.current, self.selected = self.conversations[0], None

    def bring_back(self) -> None:
        """Take in again what was deleted last."""
        if self.deleted is not None:
            self.put(self.deleted)
            self.deleted = None

    def start(self, source: ChatSource, ask: ChatAsk, toolbox: Toolbox | None = None) -> RunningReply:
        """Have the current conversation's running reply written."""
        if self.is_closed:
            raise RequestError("the page is closed")
        reply = RunningReply.of(source, self.current, ask, toolbox)
        self._replies[self.current.conversation_id] = reply
        self.selected = None
        return reply

    def stop(self) -> None:
        """Stop the current conversation's reply."""
        self._stop(self.current)

    def close(self) -> None:
        """Stop everything that runs for this page."""
        self.is_closed = True
        for reply in (*self._replies.values(), *self.others.values()):
            reply.stop()

    def stored(self) -> str:
        """The conversations for the browser to keep: what changed here, and what its other tabs have."""
        for conversation in reversed(self.conversations):
            if conversation.conversation_id in self._touched:
                self._keep(conversation)
        running = {c.conversation_id for c in self.conversations if self.reply_of(c) is not None}
        self._touched = {self.current.conversation_id, *running}
        return self.kept.text()

    def to_store(self) -> str | None:
        """`stored()`; None where that is what the browser was given last."""
        text = self.stored()
        if text == self._in_browser:
            return None
        self._in_browser = text
        return text

    def restore(self, text: str | None) -> None:
        """Take in what the browser has kept; what can't be read is left out."""
        if not text or self.current.all_messages:
            return
        try:
            conversations = import_conversations(text)
        except ConfigError:
            return
        if conversations:
            self._in_browser = text
            self._kept_texts = {c.conversation_id: conversation_text(c) for c in conversations}
            self.kept.take(self._kept_texts)
            self.conversations = conversations[:_MAX_CONVERSATIONS]
            self.current, self.selected = self.conversations[0], None

    def _keep(self, conversation: Conversation) -> None:
        """Keep it as it is, if this tab has changed it: another tab's may be newer."""
        name, text = conversation.conversation_id, conversation_text(conversation)
        if self._kept_texts.get(name) == text:
            return
        self._kept_texts[name] = text
        if conversation.all_messages:
            self.kept.put(name, text)
        else:
            self.kept.remove(name)

    def _stop(self, conversation: Conversation) -> None:
        reply = self._replies.get(conversation.conversation_id)
        if reply is not None:
            reply.stop()


class Desks:
    """The desks of all open pages, by session hash."""

    def __init__(self) -> None:
        self._desks: dict[str, Desk] = {}
        self._kept: dict[str, KeptConversations] = {}

    def join(self, desk: Desk, browser_id: str) -> None:
        """A page says which browser it is in: what it keeps is kept together with that browser's other tabs."""
        desk.kept = self._kept.pop(browser_id, desk.kept)
        # The last one is the one that was seen last.
        self._kept[browser_id] = desk.kept
        if len(self._kept) > _MAX_BROWSERS:
            del self._kept[next(iter(self._kept))]

    def of(self, session_hash: str | None) -> Desk:
        """The page's desk, made at its first visit."""
        key = session_hash or ""
        if key not in self._desks:
            self._desks[key] = Desk()
        return self._desks[key]

    def close(self, session_hash: str | None) -> None:
        """The page is gone: stop what it runs."""
        desk = self._desks.pop(session_hash or "", None)
        if desk is not None:
            desk.close()

    def close_all(self) -> None:
        """Stop everything."""
        for session_hash in list(self._desks):
            self.close(session_hash)

    @property
    def num_running(self) -> int:
        """Replies that run, of all pages."""
        return sum(desk.num_running for desk in self._desks.values())

    def __iter__(self) -> Iterator[Desk]:
        return iter(tuple(self._desks.values()))
