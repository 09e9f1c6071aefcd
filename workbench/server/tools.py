"""Functions a model may call: how it is told of them, the grammar of a call, and calls found in its text.

Calls are written as <tool_call>{"name": ..., "arguments": {...}}</tool_call>, the form of Hermes and Qwen models.
"""

from __future__ import annotations

import enum
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.engine import StructureKind, StructureSpec

__all__ = [
    "Function",
    "TextPiece",
    "ToolCall",
    "ToolCallParser",
    "ToolChoice",
    "ToolMode",
    "call_text",
    "cut_call",
    "new_call_id",
    "tool_grammar",
]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MOST_FORCED_CALLS = 16
_DECODER = json.JSONDecoder()
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]*)"')
_ARGUMENTS = re.compile(r'"arguments"\s*:\s*')
_JSON_OPTIONS = {"whitespace_pattern": r"[ ]?"}


@dataclass(frozen=True)
class Function:
    """A function that is offered; `parameters` is the JSON schema of its arguments, None for any object."""

    name: str
    description: str
    parameters: dict[str, Any] | None

    def as_tool(self) -> dict[str, Any]:
        """The form that chat templates take."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}

    @property
    def schema(self) -> dict[str, Any]:
        """Schema of the arguments."""
        return self.parameters or {"type": "object"}

    @property
    def structure(self) -> StructureSpec:
        """The arguments alone."""
        return StructureSpec(StructureKind.JSON_SCHEMA, json.dumps(self.schema))


class ToolMode(enum.StrEnum):
    """Whether functions are called: never, as the model likes, or always."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True)
class ToolChoice:
    """Whether and which functions are to be called; `name` is the only one allowed, where there is one."""

    mode: ToolMode
    parallel: bool = True
    name: str | None = None


@dataclass(frozen=True)
class ToolCall:
    """One call; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class TextPiece:
    """Text of an answer that is not a call."""

    text: str


def call_text(name: str, arguments: str) -> str:
    """A call as the model writes it. Arguments that are not JSON are passed on as a string."""
    try:
        value = json.loads(arguments)
    except ValueError:
        value = arguments
    return f"{_OPEN}\n{json.dumps({'name': name, 'arguments': value}, ensure_ascii=False)}\n{_CLOSE}"


def tool_grammar(functions: Sequence[Function], choice: ToolChoice, answer: StructureSpec | None) -> StructureSpec:
    """What an answer may look like: calls of the functions, or text. `answer` is the form of an answer without calls.

    Calls that must be made are at most 16: a small model would go on calling until its context is full. Raises
    ValueError for an `answer` that is not JSON.
    """
    allowed = [f for f in functions if choice.name in (None, f.name)]
    names = [f"call_{i}" for i in range(len(allowed))]
    calls = f"({' | '.join(names)})"
    several = f'{calls} ("\\n" {calls})*' if choice.parallel else calls
    rules = [f"{name}: {_call_rule(function)}" for name, function in zip(names, allowed, strict=True)]
    if choice.mode is ToolMode.REQUIRED:
        more = f' ("\\n" {calls}){{0,{_MOST_FORCED_CALLS - 1}}}' if choice.parallel else ""
        start = [f"start: {calls}{more}"]
    elif answer is not None:
        start = [f"start: {several} | answer", f"answer: %json {_answer_schema(answer)}"]
    else:
        # A lazy token ends at the first opening tag, so text before a call stays free.
        rules = [rule.replace(f": {_quoted(_OPEN)}", ": opening", 1) for rule in rules]
        start = [f"start: {calls}* rest" if choice.parallel else f"start: rest | {calls}", "rest: TEXT"]
        start += [r"TEXT: /(.|\n)*/", f"opening[lazy]: TEXT {_quoted(_OPEN)}"]
    return StructureSpec(StructureKind.GRAMMAR, "\n".join([*start, *rules]))


class ToolCallParser:
    """Tells calls from text in an answer as it comes, however it is cut.

    What may be the beginning of a call is held back, and so are blanks, which belong to the answer only if more of it
    follows.
    """

    def __init__(self) -> None:
        self._held = ""
        self._has_calls = False

    def feed(self, text: str) -> list[TextPiece | ToolCall]:
        """What is known of the answer since the last piece."""
        self._held += text
        found: list[TextPiece | ToolCall] = []
        while True:
            opening = self._held.find(_OPEN)
            self._give_text(found, opening if opening >= 0 else len(self._held) - _num_held_back(self._held))
            call = self._take_call() if opening >= 0 else None
            if call is None:
                return found
            found.append(call)

    def finish(self) -> list[TextPiece | ToolCall]:
        """The rest, for an answer that has ended; a call that was cut short is given as text."""
        rest, self._held = self._held, ""
        return [TextPiece(rest)] if rest.strip() or (rest and not self._has_calls) else []

    def _give_text(self, found: list[TextPiece | ToolCall], end: int) -> None:
        text = self._held[:end].rstrip()
        if text:
            found.append(TextPiece(text))
            self._held = self._held[len(text) :]

    def _take_call(self) -> ToolCall | None:
        """The call that the held text begins with, taken out of it; None while it is not complete."""
        begin = self._held.find(_OPEN) + len(_OPEN)
        if _CLOSE not in self._held[begin:]:
            return None
        try:
            # The closing tag that was seen may stand in a string, so it is the JSON that says where the call ends.
            call, end = _DECODER.raw_decode(self._held, begin + _num_blanks(self._held[begin:]))
        except ValueError:
            return None
        closing = self._held.find(_CLOSE, end)
        if closing < 0:
            return None
        self._held = self._held[closing + len(_CLOSE) :]
        self._has_calls = True
        return ToolCall(new_call_id(), call["name"], json.dumps(call["arguments"], ensure_ascii=False))


def cut_call(text: str) -> tuple[str, ToolCall] | None:
    """The call that a text breaks off in, and the text before it; None where there is none. What has not come of the
    call, its name included, is empty."""
    opening = text.find(_OPEN)
    if opening < 0:
        # One character alone may be anything.
        held_back = _num_held_back(text)
        opening = len(text) - held_back if held_back > 1 else -1
    if opening < 0:
        return None
    begun = text[opening + len(_OPEN) :]
    name, arguments = _NAME.search(begun), _ARGUMENTS.search(begun)
    call = ToolCall(new_call_id(), name[1] if name else "", begun[arguments.end() :] if arguments else "")
    return text[:opening].rstrip(), call


def new_call_id() -> str:
    """An id that no other call has."""
    return f"call_{secrets.token_hex(12)}"


def _call_rule(function: Function) -> str:
    schema = {**function.schema, "x-guidance": _JSON_OPTIONS}
    head = f'\n{{"name": {json.dumps(function.name)}, "arguments": '
    return f"{_quoted(_OPEN)} {_quoted(head)} %json {json.dumps(schema)} {_quoted(f'}}{chr(10)}{_CLOSE}')}"


def _answer_schema(answer: StructureSpec) -> str:
    if answer.kind is StructureKind.JSON_OBJECT:
        return '{"type": "object"}'
    if answer.kind is StructureKind.JSON_SCHEMA:
        return answer.text
    raise ValueError("regex, choice and grammar cannot be combined with tools")


def _quoted(text: str) -> str:
    return json.dumps(text)


def _num_blanks(text: str) -> int:
    return len(text) - len(text.lstrip())


def _num_held_back(text: str) -> int:
    """Length of the longest end of `text` that begins an opening tag."""
    return next((n for n in range(min(len(_OPEN) - 1, len(text)), 0, -1) if _OPEN.startswith(text[-n:])), 0)
