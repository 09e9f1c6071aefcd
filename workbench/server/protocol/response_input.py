"""What the Responses API is given: messages, calls and their results, as items in a row."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from workbench.server.chat_messages import ChatMessage
from workbench.server.protocol.content import Content, content_text
from workbench.server.protocol.forms import by_class, first_wrong, forms
from workbench.server.protocol.tools import FunctionName
from workbench.server.protocol.wire import WireRequest
from workbench.server.tools import ToolCall

__all__ = ["Input", "ItemStatus", "input_messages"]

ItemStatus = Literal["in_progress", "completed", "incomplete"]
CallId = Annotated[str, Field(min_length=1, max_length=256)]


class InputMessage(WireRequest):
    """One message of the conversation."""

    unsupported = {"phase": ()}

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = Field(None, max_length=256)
    status: ItemStatus | None = None


class InputCall(WireRequest):
    """A call that the model made earlier."""

    unsupported = {"async": (False,), "caller": (), "namespace": ()}

    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: str
    id: str | None = Field(None, max_length=256)
    status: ItemStatus | None = None


class InputCallOutput(WireRequest):
    """What a function gave back."""

    unsupported = {"caller": ()}

    type: Literal["function_call_output"]
    call_id: CallId
    output: Content
    id: str | None = Field(None, max_length=256)
    status: ItemStatus | None = None


def _item_form(value: Any) -> str | None:
    # A message may leave its type out.
    kind = value.get("type", "message") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


InputItem = Annotated[
    InputMessage | InputCall | InputCallOutput,
    forms(
        _item_form,
        "must be a message, a function_call or a function_call_output",
        {"message": InputMessage, "function_call": InputCall, "function_call_output": InputCallOutput},
    ),
]
Input = Annotated[
    str | list[InputItem],
    forms(
        by_class({str: "text", list: "items"}),
        "must be a text or a list of items",
        {
            "text": Annotated[str, Field(min_length=1)],
            "items": Annotated[list[InputItem], Field(min_length=1, max_length=2048), first_wrong],
        },
    ),
]


def input_messages(given: str | list[InputMessage | InputCall | InputCallOutput]) -> list[ChatMessage]:
    """The messages of an input; calls in a row belong to one message of the assistant."""
    messages: list[ChatMessage] = []
    for item in [InputMessage(role="user", content=given, id=None)] if isinstance(given, str) else given:
        _append(messages, item)
    return messages


def _append(messages: list[ChatMessage], item: InputMessage | InputCall | InputCallOutput) -> None:
    if isinstance(item, InputMessage):
        role = "system" if item.role == "developer" else item.role
        messages.append(ChatMessage(role, content_text(item.content)))
    elif isinstance(item, InputCallOutput):
        messages.append(ChatMessage("tool", content_text(item.output), tool_call_id=item.call_id))
    else:
        before = messages.pop() if messages and messages[-1].role == "assistant" else ChatMessage("assistant", "")
        call = ToolCall(item.call_id, item.name, item.arguments)
        messages.append(ChatMessage("assistant", before.content, tool_calls=(*before.tool_calls, call)))
