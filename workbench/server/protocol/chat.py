"""Chat completions on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workbench.server.protocol.forms import first_wrong
from workbench.server.protocol.messages import Message
from workbench.server.protocol.sampling import Count, GenerationRequest
from workbench.server.protocol.tools import ToolCallReply, ToolChoiceField, Tools, functions_of, tool_choice_of
from workbench.server.protocol.usage import Usage
from workbench.server.protocol.wire import (
    CACHE_OPTIONS,
    CACHE_RETENTION,
    SparseReply,
    WireReply,
    WireRequest,
    WrongField,
)
from workbench.server.tools import Function, ToolChoice

__all__ = [
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatLogprobs",
    "ChatRequest",
    "ChatTokenLogprob",
    "ChatTopLogprob",
    "Delta",
    "FunctionDelta",
    "ReplyMessage",
    "TemplateOptions",
    "ToolCallDelta",
]


class TemplateOptions(WireRequest):
    """Switches that some chat templates know. Nothing else of a template can be changed by a request."""

    enable_thinking: bool | None = None


class ChatRequest(GenerationRequest):
    """Answer a conversation."""

    unsupported = {
        **GenerationRequest.unsupported,
        "add_special_tokens": (False,),
        "audio": (),
        "best_of": (1,),
        "chat_template": (),
        "documents": ([],),
        "echo": (False,),
        "function_call": ("none",),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "prompt_cache_options": CACHE_OPTIONS,
        "prompt_cache_retention": CACHE_RETENTION,
        "reasoning_effort": ("none",),
        "suffix": ("",),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: Annotated[list[Message], first_wrong] = Field(min_length=1, max_length=2048)
    max_tokens: Count | None = Field(
        None, description="Most tokens of an answer; until the context is full if left out."
    )
    max_completion_tokens: Count | None = Field(None, description="Another name for `max_tokens`.")
    logprobs: bool | None = Field(None, description="Report how likely each token was.")
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Tools | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = Field(None, description="Go on writing the last message.")
    chat_template_kwargs: TemplateOptions | None = None

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16},
                {
                    "messages": [{"role": "user", "content": "A cat, as JSON."}],
                    "max_tokens": 32,
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {
                            "name": "cat",
                            "schema": {"type": "object", "properties": {"name": {"type": "string"}}},
                        },
                    },
                },
            ]
        }
    }

    @model_validator(mode="after")
    def _check_chat(self) -> ChatRequest:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise WrongField("max_tokens", "and max_completion_tokens differ: give one of the two")
        if self.top_logprobs and not self.logprobs:
            raise WrongField("top_logprobs", "is only allowed together with logprobs")
        if self.parallel_tool_calls is False and not self.tools:
            raise WrongField("parallel_tool_calls", "is only allowed together with tools")
        if self.continue_final_message and (self.add_generation_prompt or self.messages[-1].role != "assistant"):
            raise WrongField(
                "continue_final_message", "needs an assistant's message at the end, and no add_generation_prompt"
            )
        tool_choice_of(self.tool_choice, self.functions, self.parallel_tool_calls)
        return self

    @property
    def functions(self) -> tuple[Function, ...]:
        """The functions that are offered."""
        return functions_of(self.tools)

    @property
    def choice(self) -> ToolChoice:
        """Whether and which functions are to be called."""
        return tool_choice_of(self.tool_choice, self.functions, self.parallel_tool_calls)

    @property
    def token_limit(self) -> int | None:
        """Most tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens


class ChatTopLogprob(WireReply):
    """A token that could have come, and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(ChatTopLogprob):
    """A token of the answer."""

    top_logprobs: list[ChatTopLogprob] = []


class ChatLogprobs(WireReply):
    """How likely the answer's tokens were."""

    content: list[ChatTokenLogprob]
    refusal: None = None


class ReplyMessage(SparseReply):
    """The answer."""

    kept = ("content", "refusal")

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallReply] | None = None


class ChatChoice(WireReply):
    """One of `n` answers."""

    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(WireReply):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    service_tier: None = None


class FunctionDelta(SparseReply):
    """A piece of a call."""

    name: str | None = None
    arguments: str


class ToolCallDelta(SparseReply):
    """A piece of a call; the first one has the id and the name."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(SparseReply):
    """What a chunk adds to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatChunkChoice(WireReply):
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None


class ChatChunk(SparseReply):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    system_fingerprint: str
    obfuscation: str | None = None
