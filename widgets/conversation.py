"""Messages of a chat and what of them goes into the next prompt. Plain values; knows no widget and no engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from workbench.failure import Failure

__all__ = ["Conversation", "Message", "MessageStatus"]


class MessageStatus(Enum):
    """Where a message stands. STOPPED replies keep the text they had."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass
class Message:
    """One message. `note` is the line under a finished reply, `failure` why it has none."""

    number: int
    role: str
    text: str = ""
    status: MessageStatus = MessageStatus.DONE
    note: str = ""
    failure: Failure | None = None

    def as_dict(self) -> dict[str, object]:
        """The same as plain JSON values."""
        return {
            "number": self.number,
            "role": self.role,
            "text": self.text,
            "status": self.status.value,
            "note": self.note,
            "failure": self.failure.as_dict() if self.failure else None,
        }


class Conversation:
    """The messages so far, oldest first, behind an optional system prompt."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._messages: list[Message] = []
        self._next_number = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """Every message, the running reply included."""
        return tuple(self._messages)

    def add(self, role: str, text: str = "", status: MessageStatus = MessageStatus.DONE) -> Message:
        """Append a message and give it its number; numbers are never used twice."""
        message = Message(self._next_number, role, text, status)
        self._next_number += 1
        self._messages.append(message)
        return message

    def clear(self) -> None:
        """Forget every message; the system prompt stays."""
        self._messages.clear()

    def prompt(self) -> list[dict[str, str]]:
        """What the model gets to see: role and content of each message.

        A question whose reply failed with no text is left out together with that reply, as chat templates want
        question and answer in turn; a running reply is left out too.
        """
        kept: list[Message] = []
        for message in self._messages:
            if message.role == "assistant" and not message.text:
                if message.status is not MessageStatus.RUNNING and kept and kept[-1].role == "user":
                    kept.pop()
                continue
            kept.append(message)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [{"role": message.role, "content": message.text} for message in kept]
