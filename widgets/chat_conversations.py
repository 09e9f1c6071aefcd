"""Which conversation a chat shows: begin, open, branch, forget, save and read. Knows not how text is generated."""

from __future__ import annotations

import traitlets

from widgets.chat_knobs import ChatKnobs
from widgets.chat_shelf import ChatShelf
from widgets.chat_view import ChatView
from workbench.conversation import Conversation, export_conversations, import_conversations
from workbench.errors import ConfigError

__all__ = ["ChatConversations"]


class ChatConversations(ChatKnobs):
    """The part of a chat widget that holds its conversations. The widget has a shelf of them and a view.

    All methods raise RequestError while a reply runs.
    """

    # {"id", "title"} of each, newest first.
    conversations = traitlets.List().tag(sync=True)
    conversation_id = traitlets.Unicode().tag(sync=True)

    _shelf: ChatShelf
    _view: ChatView

    @property
    def conversation(self) -> Conversation:
        """The chat that is open, as a tree; change it through this widget's methods, so that the page follows."""
        return self._shelf.current

    def new_chat(self) -> None:
        """Begin a conversation; the one that was open stays, and can be opened again."""
        with self._lock:
            self._require_idle()
            self._shelf.begin()
            self._show_other()

    def open_chat(self, conversation_id: str) -> None:
        """Show another of `conversations`. Raises RequestError for one that is not there."""
        with self._lock:
            self._require_idle()
            self._shelf.open(conversation_id)
            self._show_other()

    def branch(self, number: int) -> None:
        """Go on in a new conversation that ends with a message; the old one stays beside it."""
        with self._lock:
            self._require_idle()
            self._shelf.put([self.conversation.branch(number)])
            self._show_other()

    def clear(self) -> None:
        """Forget the conversation that is open."""
        with self._lock:
            self._require_idle()
            self._shelf.forget()
            self._show_other()

    def export_json(self, *, everything: bool = False) -> str:
        """The conversation that is open, or all of the list, with all their versions."""
        with self._lock:
            return export_conversations(self._shelf.all if everything else [self.conversation])

    def import_json(self, text: str) -> None:
        """Take in conversations of `export_json`, or a list of {"role", "content"}, and show the first. Raises
        ConfigError."""
        with self._lock:
            self._require_idle()
            found = [one for one in import_conversations(text) if one.all_messages]
            if not found:
                raise ConfigError("there is no message in it: the chat stays as it is")
            self._shelf.put(found)
            self._show_other()

    def take_over(self, earlier: ChatConversations, system: str | None = None) -> None:
        """Show what an earlier widget had, which is closed; `system` replaces the prompt of what is open."""
        with self._lock:
            self._require_idle()
            self._shelf = earlier._shelf
            if system is not None:
                self.conversation.system = system
            self._show_other()

    def _show_other(self) -> None:
        """Show the page the conversation that has become the open one."""
        self._view.forget()
        with self.hold_sync():
            self.show_settings()
            self._show_messages(busy=False)

    def _show_names(self) -> None:
        """Show the page what can be opened."""
        self.conversations = [{"id": name, "title": title} for name, title in self._shelf.names]
        self.conversation_id = self.conversation.conversation_id

    def _show_messages(self, *, busy: bool) -> None:
        raise NotImplementedError

    def _require_idle(self) -> None:
        raise NotImplementedError
