"""Messages as a page shows them: rendered blocks, versions, notes. Remembers what it rendered; knows no widget."""

from __future__ import annotations

import html
from typing import Any

from widgets.markdown_text import MarkdownStream
from workbench.conversation import Message, Versions, split_reasoning

__all__ = ["ChatView"]


class ChatView:
    """Renders messages, each block of them once. One thread at a time uses it."""

    def __init__(self) -> None:
        self._streams: dict[int, MarkdownStream] = {}
        self._sent: dict[int, list[str]] = {}

    def forget(self) -> None:
        """Numbers will mean other messages from now on."""
        self._streams.clear()
        self._sent.clear()

    def as_dict(self, message: Message, versions: Versions) -> dict[str, Any]:
        """Everything of a message, as JSON values."""
        return {
            "number": message.number,
            "role": message.role,
            "status": message.status.value,
            "text": message.text,
            "blocks": self._render(message),
            "note": message.note,
            "failure": message.failure.as_dict() if message.failure else None,
            "version": versions.index + 1,
            "versions": versions.count,
            "has_tokens": bool(message.tokens),
        }

    def whole(self, message: Message) -> dict[str, Any]:
        """All blocks of a message."""
        return {"number": message.number, "from": 0, "blocks": self._render(message)}

    def change(self, message: Message) -> dict[str, Any]:
        """The blocks that changed since this message was last rendered, and the first one's place."""
        before = self._sent.get(message.number, [])
        blocks = self._render(message)
        same = 0
        while same < min(len(before), len(blocks)) and before[same] == blocks[same]:
            same += 1
        return {"number": message.number, "from": same, "blocks": blocks[same:]}

    def _render(self, message: Message) -> list[str]:
        if message.role == "user":
            # What a person typed is shown as typed.
            return [f'<p class="wb-plain">{html.escape(message.text)}</p>']
        stream = self._streams.setdefault(message.number, MarkdownStream())
        blocks: list[str] = []
        for part in split_reasoning(message.text):
            if part.is_reasoning:
                # Reasoning is folded away, and rendered whole: it is rarely long.
                inner = "".join(MarkdownStream().blocks_of(part.text))
                is_open = " open" if part.is_open else ""
                blocks.append(f'<details class="wb-reasoning"{is_open}><summary>Reasoning</summary>{inner}</details>')
            else:
                blocks += stream.blocks_of(part.text)
        self._sent[message.number] = blocks
        return blocks
