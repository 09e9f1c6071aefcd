"""A conversation as entries of Gradio's Chatbot, and which message each entry belongs to. Knows no component."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any

from dashboards.shown_text import reply_text, shown_text
from workbench.conversation import Conversation, Message, MessageStatus, ToolStep, split_reasoning

__all__ = ["ChatEntries", "chat_entries"]


@dataclass(frozen=True)
class ChatEntries:
    """`entries[i]` is shown for the message with number `owners[i]`."""

    entries: list[dict[str, Any]]
    owners: list[int]

    def owner(self, index: int | tuple[int, int] | list[int]) -> int | None:
        """Number of the message that an event speaks of."""
        first = index if isinstance(index, int) else index[0]
        return self.owners[first] if 0 <= first < len(self.owners) else None


def chat_entries(conversation: Conversation, live_line: str = "") -> ChatEntries:
    """What is shown of the conversation's path; `live_line` stands under a running reply."""
    entries: list[dict[str, Any]] = []
    owners: list[int] = []
    for message in conversation.messages:
        own = (
            _reply(conversation, message, live_line)
            if message.role == "assistant"
            else [_entry("user", shown_text(message.text))]
        )
        entries += own
        owners += [message.number] * len(own)
    return ChatEntries(entries, owners)


def _entry(role: str, content: str, **metadata: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": role, "content": content}
    if metadata:
        entry["metadata"] = metadata
    return entry


def _reply(conversation: Conversation, message: Message, live_line: str) -> list[dict[str, Any]]:
    entries = []
    for step in message.steps:
        if step.said.strip():
            entries.append(_entry("assistant", reply_text(step.said)))
        if not step.is_cut:
            entries.append(_step(step, message.is_running))
    for part in split_reasoning(message.text):
        if part.is_reasoning:
            status = "pending" if part.is_open and message.is_running else "done"
            entries.append(_entry("assistant", reply_text(part.text) or "…", title="Reasoning", status=status))
        else:
            entries.append(_entry("assistant", reply_text(part.text)))
    # A reply ends with the call that it breaks off in.
    entries += [_cut_step(step) for step in message.steps if step.is_cut]
    if message.failure is not None:
        words = f"**{message.failure.cause}**\n\n{message.failure.next_step}"
        entries.append(_entry("assistant", shown_text(words)))
    if not entries and not message.is_running:
        entries.append(_entry("assistant", "*(no text)*"))
    note = _note(conversation, message, live_line)
    if note:
        entries.append(_entry("assistant", f"<small>{html.escape(note)}</small>"))
    return entries


def _step(step: ToolStep, is_running: bool) -> dict[str, Any]:
    """A call as a fold: arguments and result inside, the result's beginning beside its name."""
    if step.result is None:
        title = f"Calling {step.name}" if is_running else f"Stopped while calling {step.name}"
        status = "pending" if is_running else "done"
        return _entry("assistant", _as_code(step.arguments), title=title, status=status)
    first = step.result.strip().splitlines()[0][:60] if step.result.strip() else ""
    content = f"{_as_code(step.arguments)}\n\n{_as_code(step.result)}"
    title = f"{step.name} failed" if step.failed else f"Called {step.name}"
    return _entry("assistant", content, title=title, status="done", log=first)


def _cut_step(step: ToolStep) -> dict[str, Any]:
    """A call that was never made, open (as it has no status), with the sentence that says why."""
    begun = f"{_as_code(step.arguments)}\n\n" if step.arguments.strip() else ""
    words = "The reply reached its length limit inside this call, so it was not made. Allow more tokens and regenerate."
    title = f"Call of {step.name or 'a tool'} was cut off"
    return _entry("assistant", begun + words, title=title)


def _as_code(text: str) -> str:
    try:
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=1)
        language = "json"
    except ValueError:
        language = ""
    fence = "```" if "```" not in text else "`" * 8
    return f"{fence}{language}\n{text}\n{fence}"


def _note(conversation: Conversation, message: Message, live_line: str) -> str:
    if message.status is MessageStatus.RUNNING:
        return live_line or "…"
    versions = conversation.versions(message.number)
    count = f"version {versions.numbers.index(message.number) + 1} of {versions.count}" if versions.count > 1 else ""
    return ", ".join(part for part in (message.note, count) if part)
