"""A chat as a tree: every edit and every new answer is a version beside the old one, and one path is shown.

Knows no engine and no page. One thread changes it at a time: whoever shares it brings a lock.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from workbench.conversation.message import ROLES, Message, MessageStatus
from workbench.errors import RequestError

__all__ = ["Conversation", "Versions"]

_MAX_TITLE_CHARS = 40


@dataclass(frozen=True)
class Versions:
    """The messages that stand in one place: their numbers, oldest first, and which of them is shown."""

    numbers: tuple[int, ...]
    index: int

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.numbers)


@dataclass
class _Place:
    """What may follow a message (or begin the chat): the versions, and the one that is shown."""

    children: list[int] = field(default_factory=list)
    shown: int | None = None


class Conversation:
    """A tree of messages behind an optional system prompt; `messages` is the path through it that is shown.

    Wrong numbers and changes while a reply runs raise RequestError.
    """

    def __init__(self, system: str | None = None, *, title: str = "", conversation_id: str | None = None) -> None:
        self.system = system
        self.conversation_id = conversation_id or secrets.token_hex(8)
        self._title = title
        self._messages: dict[int, Message] = {}
        self._places: dict[int | None, _Place] = {None: _Place()}
        self._next_number = 0

    @property
    def title(self) -> str:
        """Its name; until it is given one, the beginning of the first question."""
        if self._title:
            return self._title
        first = next((m.text for m in self.messages if m.role == "user" and m.text.strip()), "")
        line = " ".join(first.split())
        return line if len(line) <= _MAX_TITLE_CHARS else f"{line[: _MAX_TITLE_CHARS - 1].rstrip()}…"

    @title.setter
    def title(self, title: str) -> None:
        self._title = " ".join(title.split())

    @property
    def given_title(self) -> str:
        """The name it was given; empty while `title` is made from the first question."""
        return self._title

    @property
    def messages(self) -> tuple[Message, ...]:
        """The path that is shown, oldest first, a running reply included."""
        return tuple(self._walk(None))

    @property
    def all_messages(self) -> tuple[Message, ...]:
        """Every message of every branch; a message comes after the one it follows."""
        return tuple(self._messages.values())

    @property
    def running(self) -> Message | None:
        """The reply that is being written, if it is on the path."""
        return next((message for message in self.messages if message.is_running), None)

    @property
    def continues_reply(self) -> bool:
        """Whether the running reply goes on from text that is there already, which then ends the prompt."""
        running = self.running
        return running is not None and running.num_given_chars > 0

    def message(self, number: int) -> Message:
        """The message of that number, shown or not."""
        if number not in self._messages:
            raise RequestError(f"there is no message {number} in this conversation")
        return self._messages[number]

    def versions(self, number: int) -> Versions:
        """The versions at the place of a message, itself among them."""
        place = self._place_of(self.message(number))
        return Versions(tuple(place.children), place.children.index(place.shown if place.shown is not None else number))

    def add(self, role: str, text: str = "", status: MessageStatus = MessageStatus.DONE) -> Message:
        """Append a message to the path and give it its number; numbers are never used twice."""
        path = self.messages
        return self._insert(path[-1].number if path else None, role, text, status)

    def reply(self, start: str = "") -> Message:
        """Append a running reply, which goes on from `start` if that is given."""
        self._require_idle()
        message = self.add("assistant", start, MessageStatus.RUNNING)
        message.num_given_chars = len(start)
        return message

    def show(self, number: int) -> None:
        """Show a message in place of its other versions, and with it the path behind it."""
        self._require_idle()
        message = self.message(number)
        while True:
            self._place_of(message).shown = message.number
            if message.parent is None:
                return
            message = self._messages[message.parent]

    def show_next(self, number: int, step: int = 1) -> Message:
        """Show the version `step` places further (backwards when negative), as far as there is one."""
        versions = self.versions(number)
        index = min(max(versions.numbers.index(number) + step, 0), versions.count - 1)
        self.show(versions.numbers[index])
        return self._messages[versions.numbers[index]]

    def edit(self, number: int, text: str, *, keep_following: bool | None = None) -> Message:
        """A new version of a message with another text, which is then shown.

        What follows on the path is copied behind it when `keep_following`; by default it is for replies, and not for
        questions, which wait for a new reply.
        """
        self._require_idle()
        old = self.message(number)
        if not text.strip():
            raise RequestError("the message is empty: write something in its place")
        following = (
            list(self._walk(number)) if (old.role != "user" if keep_following is None else keep_following) else []
        )
        new = self._insert(old.parent, old.role, text, MessageStatus.DONE)
        self._copy(following, new.number)
        return new

    def regenerate(self, number: int | None = None) -> Message:
        """A running reply as a new version of the reply `number` (None: of the last one), which is then shown.

        A question that has no reply gets its first.
        """
        self._require_idle()
        old = self._last() if number is None else self.message(number)
        if old.role == "user":
            return self._insert(old.number, "assistant", "", MessageStatus.RUNNING)
        return self._insert(old.parent, "assistant", "", MessageStatus.RUNNING)

    def resume(self) -> Message:
        """Open the last reply again: the model goes on from its text."""
        self._require_idle()
        last = self._last()
        if last.role != "assistant" or not last.text:
            raise RequestError("there is no reply to go on with")
        last.status, last.num_given_chars, last.failure = MessageStatus.RUNNING, len(last.text), None
        last.steps = tuple(step for step in last.steps if not step.is_cut)
        return last

    def undo(self) -> str:
        """Take back the last question with its reply, and give its text. Both stay as versions."""
        self._require_idle()
        question = next((message for message in reversed(self.messages) if message.role == "user"), None)
        if question is None:
            raise RequestError("there is nothing to take back")
        self.end_at(question.parent)
        return question.text

    def end_at(self, number: int | None) -> None:
        """Let the path that is shown end with a message (None: be empty); what came after it can be shown again."""
        if number is not None:
            self.show(number)
        self._places[number].shown = None

    def branch(self, number: int) -> Conversation:
        """A new conversation with the path up to and including a message."""
        self._require_idle()
        message: Message | None = self.message(number)
        path: list[Message] = []
        while message is not None:
            path.append(message)
            message = None if message.parent is None else self._messages[message.parent]
        branch = Conversation(self.system, title=f"{self.title} (branch)")
        branch._copy(reversed(path), None)
        return branch

    def clear(self) -> None:
        """Forget every message; the system prompt stays."""
        self._messages.clear()
        self._places = {None: _Place()}

    def prompt(self) -> list[dict[str, object]]:
        """What the model gets to see, in the form of chat APIs.

        A question whose reply failed with no text is left out together with that reply, as chat templates want
        question and answer in turn. So is a running reply, unless it goes on from text that is there already.
        """
        kept: list[Message] = []
        for message in self.messages:
            text = message.text[: message.num_given_chars] if message.is_running else message.text
            if message.role == "assistant" and not text and all(step.result is None for step in message.steps):
                if not message.is_running and kept and kept[-1].role == "user":
                    kept.pop()
                continue
            kept.append(message)
        system: list[dict[str, object]] = [{"role": "system", "content": self.system}] if self.system else []
        return system + [part for message in kept for part in message.as_prompt()]

    def restore(self, message: Message) -> None:
        """Put in a message that was stored, under its own number, behind its parent. It is shown."""
        if message.number in self._messages or message.number < 0:
            raise RequestError(f"message {message.number}: the number is taken or below 0")
        if message.parent is not None and message.parent not in self._messages:
            raise RequestError(f"message {message.number}: its parent {message.parent} does not come before it")
        if message.role not in ROLES:
            raise RequestError(f"message {message.number}: role {message.role!r} is not one of {', '.join(ROLES)}")
        self._messages[message.number] = message
        self._places[message.number] = _Place()
        place = self._places[message.parent]
        place.children.append(message.number)
        place.shown = message.number
        self._next_number = max(self._next_number, message.number + 1)

    def _insert(self, parent: int | None, role: str, text: str, status: MessageStatus) -> Message:
        message = Message(self._next_number, role, text, status, parent)
        self.restore(message)
        return message

    def _copy(self, messages: Iterator[Message] | list[Message], parent: int | None) -> None:
        for message in messages:
            copied = replace(message, number=self._next_number, parent=parent)
            self.restore(copied)
            parent = copied.number

    def _walk(self, number: int | None) -> Iterator[Message]:
        """The shown messages behind a message."""
        while (number := self._places[number].shown) is not None:
            yield self._messages[number]

    def _place_of(self, message: Message) -> _Place:
        return self._places[message.parent]

    def _last(self) -> Message:
        path = self.messages
        if not path:
            raise RequestError("the conversation is empty")
        return path[-1]

    def _require_idle(self) -> None:
        if self.running is not None:
            raise RequestError("a reply is running: stop it or wait for its end")
