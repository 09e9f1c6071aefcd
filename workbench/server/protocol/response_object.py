"""What the Responses API answers: an object with the items of the answer, and what it was asked with."""

from __future__ import annotations

from typing import Any, Literal

from workbench.server.protocol.chat import ChatTokenLogprob
from workbench.server.protocol.response_input import ItemStatus
from workbench.server.protocol.wire import WireReply

__all__ = [
    "FunctionCallItem",
    "IncompleteDetails",
    "MessageItem",
    "OutputText",
    "ResponseFailure",
    "ResponseObject",
    "ResponseUsage",
]


class OutputText(WireReply):
    """Text of the answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[ChatTokenLogprob] = []


class MessageItem(WireReply):
    """A message of the answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[OutputText]


class FunctionCallItem(WireReply):
    """A call of a function."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class InputDetails(WireReply):
    """How much of the input did not have to be computed again."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(WireReply):
    """How much of the output was thinking: always 0, since it is not told apart."""

    reasoning_tokens: int = 0


class ResponseUsage(WireReply):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, num_prompt_tokens: int, num_generated_tokens: int, num_cached_tokens: int) -> ResponseUsage:
        return cls(
            input_tokens=num_prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=num_cached_tokens),
            output_tokens=num_generated_tokens,
            output_tokens_details=OutputDetails(),
            total_tokens=num_prompt_tokens + num_generated_tokens,
        )


class IncompleteDetails(WireReply):
    """Why an answer ended early."""

    reason: Literal["max_output_tokens"]


class ResponseFailure(WireReply):
    """Why there is no answer."""

    code: Literal["server_error"] = "server_error"
    message: str


class ResponseObject(WireReply):
    """The answer, and what it was asked with."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[MessageItem | FunctionCallItem]
    parallel_tool_calls: bool
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    metadata: dict[str, str]
    background: Literal[False] = False
