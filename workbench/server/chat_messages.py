"""A conversation as token ids, in which nothing that somebody wrote can pass for the template's own control tokens."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import RequestError
from workbench.models import Tokenizer
from workbench.server.tools import Function, ToolCall, call_text

__all__ = ["ChatEncoder", "ChatMessage", "Conversation"]

# What a template says when it tells the model of functions in the form that is used here.
_NATIVE_TOOL_MARKS = ("<tool_call>", '"arguments"', "tools")


@dataclass(frozen=True)
class ChatMessage:
    """One message; `tool_call_id` belongs to the role "tool", `tool_calls` to "assistant"."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Conversation:
    """Messages, the functions that are offered, and how the template ends.

    With `continue_final` the last message is left open and the model goes on writing it.
    """

    messages: tuple[ChatMessage, ...]
    functions: tuple[Function, ...] = ()
    add_generation_prompt: bool = True
    continue_final: bool = False
    enable_thinking: bool | None = None


class ChatEncoder:
    """Renders conversations with one model's own template. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        template = tokenizer.hf.chat_template or ""
        self._template = template if isinstance(template, str) else json.dumps(template)
        specials = [t.content for t in tokenizer.hf.added_tokens_decoder.values() if t.special]
        longest_first = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if specials else None
        self._literal = _literal_tokenizer(tokenizer)

    def encode(self, conversation: Conversation) -> list[int]:
        """Token ids of the conversation, ready for the model's answer.

        Raises RequestError for a model without a template, or when the template refuses the messages.
        """
        messages, tools = self._as_template_input(conversation)
        marks = _Marks(self._special)
        text = self._render(marks.hide(messages), marks.hide(tools), conversation)
        if not marks.used:
            return self._tokenizer.encode(text, add_special_tokens=False)
        return self._encode_with_marks(text, marks)

    def _as_template_input(
        self, conversation: Conversation
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        functions = conversation.functions
        if all(mark in self._template for mark in _NATIVE_TOOL_MARKS):
            return [_native(m) for m in conversation.messages], [f.as_tool() for f in functions] or None
        return _without_tools(conversation.messages, functions), None

    def _render(self, messages: list[dict[str, Any]], tools: Any, conversation: Conversation) -> str:
        if not self._template:
            raise RequestError("this model has no chat template, so it cannot take messages: use /v1/completions")
        options: dict[str, Any] = {} if tools is None else {"tools": tools}
        if conversation.enable_thinking is not None:
            if "enable_thinking" not in self._template:
                raise RequestError("chat_template_kwargs.enable_thinking: this model's template does not know it")
            options["enable_thinking"] = conversation.enable_thinking
        try:
            text = self._tokenizer.hf.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=conversation.add_generation_prompt and not conversation.continue_final,
                continue_final_message=conversation.continue_final,
                **options,
            )
        # The template is a program of the model's author, run in a sandbox that raises what it likes.
        except Exception as error:
            raise RequestError(f"messages: the model's chat template refuses them: {error}") from error
        # One conversation, not tokenised.
        assert isinstance(text, str)
        return text

    def _encode_with_marks(self, text: str, marks: _Marks) -> list[int]:
        """Tokens of a rendered text: control tokens are the template's, and what the marks stand for is plain text."""
        ids: list[int] = []
        end = 0
        # What was hidden are texts of control tokens, so there are some.
        assert self._special is not None
        for match in self._special.finditer(text):
            ids += self._encode_literally(marks.restore(text[end : match.start()]))
            token_id = self._tokenizer.hf.convert_tokens_to_ids(match[0])
            assert isinstance(token_id, int)
            ids.append(token_id)
            end = match.end()
        return ids + self._encode_literally(marks.restore(text[end:]))

    def _encode_literally(self, text: str) -> list[int]:
        return self._literal.encode(text, add_special_tokens=False).ids if text else []


class _Marks:
    """Stand-ins for control tokens that callers wrote, so that they can be told from the template's own."""

    def __init__(self, special: re.Pattern[str] | None) -> None:
        self._special = special
        # Random, so that nobody can write one.
        self._nonce = secrets.token_hex(8)
        self.used: list[str] = []

    def hide(self, value: Any) -> Any:
        """The value with every control token in its strings replaced."""
        if self._special is None:
            return value
        if isinstance(value, str):
            return self._special.sub(self._replace, value)
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        return value

    def restore(self, text: str) -> str:
        """The text with what was replaced."""
        return re.sub(rf"{self._nonce}x(\d+)x", lambda match: self.used[int(match[1])], text)

    def _replace(self, match: re.Match[str]) -> str:
        if match[0] not in self.used:
            self.used.append(match[0])
        return f"{self._nonce}x{self.used.index(match[0])}x"


def _literal_tokenizer(tokenizer: Tokenizer) -> Any:
    """A copy of the tokenizer that reads control tokens as the text they are."""
    from tokenizers import Tokenizer as FastTokenizer

    literal = FastTokenizer.from_str(tokenizer.hf.backend_tokenizer.to_str())
    literal.no_padding()
    literal.no_truncation()
    literal.encode_special_tokens = True
    return literal


def _native(message: ChatMessage) -> dict[str, Any]:
    as_dict: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        as_dict["tool_calls"] = [
            {"type": "function", "id": c.call_id, "function": {"name": c.name, "arguments": _arguments(c)}}
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        as_dict["tool_call_id"] = message.tool_call_id
    return as_dict


def _without_tools(messages: Sequence[ChatMessage], functions: Sequence[Function]) -> list[dict[str, str]]:
    """Messages for a template that knows no functions: they are told of in a system message, calls become text."""
    told = [_as_text(message) for message in messages]
    if not functions:
        return told
    if told[0]["role"] == "system":
        return [{"role": "system", "content": f"{told[0]['content']}\n\n{_tools_text(functions)}"}, *told[1:]]
    return [{"role": "system", "content": _tools_text(functions)}, *told]


def _as_text(message: ChatMessage) -> dict[str, str]:
    if message.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message.content}\n</tool_response>"}
    calls = [call_text(call.name, call.arguments) for call in message.tool_calls]
    return {"role": message.role, "content": "\n".join([*([message.content] if message.content else []), *calls])}


def _tools_text(functions: Sequence[Function]) -> str:
    described = "\n".join(json.dumps(function.as_tool(), ensure_ascii=False) for function in functions)
    return (
        "You can call functions. To call one, write exactly this and nothing after it:\n"
        '<tool_call>\n{"name": <function name>, "arguments": <JSON object of arguments>}\n</tool_call>\n'
        "The result comes back between <tool_response> and </tool_response>. These functions exist:\n"
        f"<tools>\n{described}\n</tools>"
    )


def _arguments(call: ToolCall) -> Any:
    # Templates want an object to print in their own way.
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments
