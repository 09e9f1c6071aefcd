"""What was said so far. Knows the messages, not where they are typed or who answers."""

from __future__ import annotations

__all__ = ["Conversation"]


class Conversation:
    """A chat's messages: an optional system message, then user and assistant in turns."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[dict[str, str]] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        """All messages as `[{"role", "content"}, ...]`; a new list at each call."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [dict(turn) for turn in self._turns]

    def ask(self, text: str) -> None:
        """Add the user's message."""
        self._turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        """Add the reply, whole or as far as it got. Without any text the question is taken back as well."""
        if text:
            self._turns.append({"role": "assistant", "content": text})
        else:
            self._turns.pop()

    def reset(self) -> None:
        """Forget everything but the system message."""
        self._turns.clear()
