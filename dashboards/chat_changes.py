"""What a person does to a conversation: ask, ask again, go on, edit, branch. Changes a desk; knows no component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dashboards.chat_entries import chat_entries
from dashboards.chat_settings import THINKING, ChatSettings
from dashboards.desk import Desk
from dashboards.shown_text import typed_text
from dashboards.sources import ChatAsk, ChatSource
from dashboards.toolbox import Toolbox
from workbench.conversation import Conversation, import_conversations
from workbench.errors import RequestError, WorkbenchError

__all__ = ["ChatChanges"]

_MAX_IMPORT_BYTES = 20_000_000

Change = Callable[[Conversation], object]


class ChatChanges:
    """Changes of a desk's current conversation. Those that take settings have a reply written by `source`.

    `index` is the place of an entry in the chat, as the page's events name it. All raise RequestError for what can't be
    done, and leave everything as it was.
    """

    def __init__(self, source: ChatSource, toolbox: Toolbox) -> None:
        self._source = source
        self._toolbox = toolbox

    def send(self, desk: Desk, text: str, settings: ChatSettings) -> str:
        """Ask; gives what is left in the message box."""
        if not text.strip():
            raise RequestError("the message is empty: write something to send.")
        if desk.reply is not None:
            raise RequestError("a reply is running: stop it, or wait for its end.")

        def change(chat: Conversation) -> None:
            chat.add("user", text.rstrip())
            chat.reply(settings.start)

        self.begin(desk, settings, change)
        return ""

    def begin(self, desk: Desk, settings: ChatSettings, change: Change) -> None:
        """Have a reply written after a change that opens one."""
        if settings.must_call and not settings.tools:
            raise RequestError("the model must call a tool, and none is chosen: choose one, or let it be free.")
        ask = ChatAsk(
            params=settings.params(),
            functions=self._toolbox.functions(settings.tools),
            must_call=settings.must_call,
            thinking=THINKING[settings.thinking],
        )
        desk.current.system = settings.system.strip() or None
        change(desk.current)
        desk.start(self._source, ask, self._toolbox if settings.tools else None)

    def regenerate(self, desk: Desk, settings: ChatSettings) -> None:
        """Another version of the selected reply, or of the one to the selected question."""
        message = desk.selected_message()
        self.begin(desk, settings, lambda chat: chat.regenerate(None if message is None else message.number))

    def retry(self, desk: Desk, index: int, settings: ChatSettings) -> None:
        """Another version of the reply at that place."""
        owner = chat_entries(desk.current).owner(index)
        self.begin(desk, settings, lambda chat: chat.regenerate(_reply_to(chat, owner)))

    def resume(self, desk: Desk, settings: ChatSettings) -> None:
        """Let the model go on with the last reply."""
        self.begin(desk, settings, lambda chat: chat.resume())

    def go_on_scored(self, desk: Desk, begin: str, settings: ChatSettings) -> None:
        """Another version of the reply in the heat map that begins so, which the model goes on from. Its conversation
        becomes the current one, with its own system prompt."""
        conversation, reply = desk.scored_place()
        before = desk.current, desk.selected
        if conversation is not desk.current:
            settings = replace(settings, system=conversation.system or "")

        def change(chat: Conversation) -> None:
            # It may be behind another version of a question.
            chat.show(reply.number)
            chat.edit(reply.number, begin, keep_following=False)
            chat.resume()

        desk.current = conversation
        try:
            self.begin(desk, settings, change)
        except WorkbenchError:
            desk.current, desk.selected = before
            raise

    def edit_question(self, desk: Desk, index: int, text: str, settings: ChatSettings) -> None:
        """Another version of the question at that place, and a reply to it."""
        owner = chat_entries(desk.current).owner(index)

        def change(chat: Conversation) -> None:
            chat.edit(owner, typed_text(text))
            chat.regenerate()

        self.begin(desk, settings, change)

    def edit_reply(self, desk: Desk, text: str) -> None:
        """Another version of the selected reply, in one's own words."""
        reply = desk.selected_reply()
        if reply is not None:
            desk.selected = desk.current.edit(reply.number, text).number

    def undo(self, desk: Desk) -> str:
        """Take the last question and its reply out of sight; gives the question, for the message box."""
        desk.selected = None
        return desk.current.undo()

    def select(self, desk: Desk, index: int) -> None:
        """Choose the message at that place, for what is done next."""
        desk.selected = chat_entries(desk.current).owner(index)

    def show_version(self, desk: Desk, step: int) -> None:
        """Show the version of the selected message that is `step` further on."""
        message = desk.selected_message()
        if message is not None:
            desk.selected = desk.current.show_next(message.number, step).number

    def branch(self, desk: Desk) -> None:
        """A conversation of its own, with everything up to the selected message."""
        message = desk.selected_message()
        if message is None:
            raise RequestError("the conversation is empty: there is nothing to branch from.")
        desk.put(desk.current.branch(message.number))

    def rename(self, desk: Desk, title: str) -> None:
        """Another name for the conversation."""
        if title != desk.current.title:
            desk.current.title = title

    def take_in(self, desk: Desk, content: bytes) -> None:
        """Take in the conversations of a file that was exported."""
        if len(content) > _MAX_IMPORT_BYTES:
            raise RequestError("the file is larger than 20 MB.")
        # Some editors of Windows put a mark before the text.
        found = import_conversations(content.decode("utf-8-sig", "replace"))
        conversations = [conversation for conversation in found if conversation.all_messages]
        if not conversations:
            raise RequestError("there is no message in that file: nothing was taken in.")
        desk.put(*reversed(conversations))


def _reply_to(conversation: Conversation, number: int | None) -> int | None:
    """The shown reply to a question (itself, for a reply); None when there is none."""
    path = conversation.messages
    for index, message in enumerate(path):
        if message.number == number:
            return path[index + 1].number if message.role == "user" and index + 1 < len(path) else number
    return None
