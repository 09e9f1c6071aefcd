"""The messages of a conversation on the wire, a form for each role."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workbench.server.chat_messages import ChatMessage
from workbench.server.protocol.content import Content, content_text
from workbench.server.protocol.forms import forms_by
from workbench.server.protocol.tools import ToolCallRequest
from workbench.server.protocol.wire import WireRequest, WrongField
from workbench.server.tools import ToolCall

__all__ = ["AssistantMessage", "Message", "SystemMessage", "ToolMessage", "UserMessage"]


class SystemMessage(WireRequest):
    """How the model should behave."""

    unsupported = {"name": ()}

    role: Literal["system", "developer"]
    content: Content

    def message(self) -> ChatMessage:
        return ChatMessage("system", content_text(self.content))


class UserMessage(WireRequest):
    """What the user says."""

    unsupported = {"name": ()}

    role: Literal["user"]
    content: Content

    def message(self) -> ChatMessage:
        return ChatMessage("user", content_text(self.content))


class AssistantMessage(WireRequest):
    """What the model said earlier."""

    unsupported = {"name": (), "audio": (), "function_call": (), "annotations": ([],), "refusal": ()}

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[ToolCallRequest] | None = Field(None, max_length=128)

    @model_validator(mode="after")
    def _check_something_said(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls:
            raise WrongField("content", "is missing: an assistant's message needs content or tool_calls")
        return self

    def message(self) -> ChatMessage:
        calls = tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in self.tool_calls or ())
        return ChatMessage("assistant", content_text(self.content), tool_calls=calls)


class ToolMessage(WireRequest):
    """What a function gave back."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str = Field(max_length=256)
    name: str | None = Field(None, max_length=64, description="Name of the function; the id already says it.")

    def message(self) -> ChatMessage:
        return ChatMessage("tool", content_text(self.content), tool_call_id=self.tool_call_id)


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    forms_by(
        "role",
        {
            "system": SystemMessage,
            "developer": SystemMessage,
            "user": UserMessage,
            "assistant": AssistantMessage,
            "tool": ToolMessage,
        },
    ),
]
