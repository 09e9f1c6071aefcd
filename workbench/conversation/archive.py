"""Conversations as JSON text and back. The form carries a version, and whatever is not in it is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from workbench.conversation.conversation import Conversation
from workbench.conversation.message import Message, MessageStatus, ToolStep
from workbench.conversation.reply_figures import ReplyFigures
from workbench.errors import ConfigError, RequestError
from workbench.failure import Failure

__all__ = [
    "FORMAT",
    "VERSION",
    "archive_of_texts",
    "conversation_text",
    "export_conversations",
    "import_conversations",
]

FORMAT = "workbench.conversations"
VERSION = 1


def export_conversations(conversations: Iterable[Conversation]) -> str:
    """The conversations with all their branches as JSON text. Token heat maps are left out."""
    stored = [_conversation_as_dict(conversation) for conversation in conversations]
    return json.dumps({"format": FORMAT, "version": VERSION, "conversations": stored}, ensure_ascii=False, indent=1)


def conversation_text(conversation: Conversation) -> str:
    """One conversation as compact JSON text, for `archive_of_texts`."""
    return json.dumps(_conversation_as_dict(conversation), ensure_ascii=False, separators=(",", ":"))


def archive_of_texts(texts: Iterable[str]) -> str:
    """What `export_conversations` gives, in one line, from conversations that are texts already."""
    return f'{{"format":"{FORMAT}","version":{VERSION},"conversations":[{",".join(texts)}]}}'


def import_conversations(text: str) -> list[Conversation]:
    """The conversations in a text: of `export_conversations`, or a plain list of `{"role", "content"}` messages.

    Raises ConfigError that says what is wrong with it.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this is not a conversation: it is no JSON ({error})") from None
    if isinstance(content, dict) and "format" not in content and "messages" in content:
        content = content["messages"]
    if isinstance(content, list):
        return [_of_plain_messages(content)]
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"this is not a conversation: format must be {FORMAT!r}, or give a list of messages")
    if content.get("version") != VERSION:
        raise ConfigError(f"version {content.get('version')!r} is not known here: this reads version {VERSION}")
    stored = content.get("conversations")
    if not isinstance(stored, list):
        raise ConfigError("conversations must be a list")
    return [_conversation(number, entry) for number, entry in enumerate(stored)]


def _conversation_as_dict(conversation: Conversation) -> dict[str, object]:
    return {
        "id": conversation.conversation_id,
        "title": conversation.given_title,
        "system": conversation.system,
        "messages": [_message_as_dict(message) for message in conversation.all_messages],
        "shown": [message.number for message in conversation.messages],
    }


def _message_as_dict(message: Message) -> dict[str, object]:
    # A reply that is cut off by the export was stopped, as far as the reader is concerned.
    status = MessageStatus.STOPPED if message.is_running else message.status
    stored: dict[str, object] = {
        "number": message.number,
        "parent": message.parent,
        "role": message.role,
        "text": message.text,
        "status": status.value,
    }
    if message.figures is not None:
        stored["figures"] = {name: value for name, value in asdict(message.figures).items() if value is not None}
    if message.failure is not None:
        stored["failure"] = message.failure.as_dict()
    if message.steps:
        stored["steps"] = [asdict(step) for step in message.steps]
    return stored


def _conversation(index: int, stored: Any) -> Conversation:
    where = f"conversations[{index}]"
    entry = _object(where, stored, {"id", "title", "system", "messages", "shown"})
    conversation = Conversation(
        _text(f"{where}.system", entry.get("system"), optional=True),
        title=_text(f"{where}.title", entry.get("title", "")),
        conversation_id=_text(f"{where}.id", entry.get("id"), optional=True),
    )
    for number, message in enumerate(_list(f"{where}.messages", entry.get("messages"))):
        _restore(conversation, _message(f"{where}.messages[{number}]", message))
    shown = _list(f"{where}.shown", entry.get("shown", []))
    try:
        conversation.end_at(shown[-1] if shown else None)
    except (RequestError, TypeError) as error:
        raise ConfigError(f"{where}.shown: {error}") from None
    return conversation


def _restore(conversation: Conversation, message: Message) -> None:
    try:
        conversation.restore(message)
    except RequestError as error:
        raise ConfigError(str(error)) from None


def _message(where: str, stored: Any) -> Message:
    known = {"number", "parent", "role", "text", "status", "figures", "failure", "steps"}
    entry = _object(where, stored, known)
    for name in ("number", "parent"):
        if type(entry.get(name)) is not int and not (name == "parent" and entry.get(name) is None):
            raise ConfigError(f"{where}.{name} must be an integer")
    try:
        status = MessageStatus(entry.get("status", "done"))
    except ValueError:
        raise ConfigError(f"{where}.status {entry['status']!r} is not known") from None
    return Message(
        number=entry["number"],
        role=_text(f"{where}.role", entry.get("role")),
        text=_text(f"{where}.text", entry.get("text")),
        status=MessageStatus.STOPPED if status is MessageStatus.RUNNING else status,
        parent=entry.get("parent"),
        figures=_value(f"{where}.figures", ReplyFigures, entry.get("figures")),
        failure=_value(f"{where}.failure", Failure, entry.get("failure")),
        steps=tuple(
            _value(f"{where}.steps", ToolStep, step) for step in _list(f"{where}.steps", entry.get("steps", []))
        ),
    )


def _of_plain_messages(messages: list[Any]) -> Conversation:
    conversation = Conversation()
    for index, stored in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(stored, Mapping):
            raise ConfigError(f"{where} must be an object with role and content")
        role, text = _text(f"{where}.role", stored.get("role")), _content(f"{where}.content", stored.get("content"))
        if role == "system" and index == 0:
            conversation.system = text
            continue
        try:
            conversation.add(role, text)
        except RequestError as error:
            raise ConfigError(f"{where}: {error}") from None
    return conversation


_KINDS = {"str": str, "int": int, "float": float, "bool": bool}


def _value(where: str, kind: type, stored: Any) -> Any:
    """A dataclass of plain values from its stored fields; None stays None."""
    if stored is None:
        return None
    hints = {f.name: f.type for f in fields(kind)}
    entry = _object(where, stored, set(hints))
    for name, value in entry.items():
        allowed = [_KINDS[part] for part in hints[name].split(" | ") if part != "None"]
        if float in allowed:
            allowed.append(int)
        if value is not None and (type(value) not in allowed):
            raise ConfigError(f"{where}.{name} must be {hints[name]}")
    try:
        return kind(**entry)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def _object(where: str, value: Any, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be an object")
    unknown = sorted(set(value) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return value


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list")
    return value


def _content(where: str, value: Any) -> str:
    """The text of a message, which chat APIs also have as a list of parts."""
    if not isinstance(value, list):
        return str(_text(where, value))
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in value]
    if any(kind != "text" for kind in kinds):
        raise ConfigError(f"{where} must be text: a chat here has no pictures or files")
    return "".join(_text(f"{where}.text", part.get("text")) for part in value)


def _text(where: str, value: Any, *, optional: bool = False) -> Any:
    if not isinstance(value, str) and not (optional and value is None):
        raise ConfigError(f"{where} must be text")
    return value
