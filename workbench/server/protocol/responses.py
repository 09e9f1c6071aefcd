"""The Responses API on the wire, without anything that would have to be remembered between requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import RequestError
from workbench.server.chat_messages import ChatMessage, Conversation
from workbench.server.protocol.chat import ChatTokenLogprob
from workbench.server.protocol.content import Content, content_text
from workbench.server.protocol.forms import by_class, first_wrong, forms, forms_by
from workbench.server.protocol.model_choice import ModelRequest
from workbench.server.protocol.sampling import Count, as_temperature
from workbench.server.protocol.structure import Schema, schema_structure
from workbench.server.protocol.tools import FunctionName
from workbench.server.protocol.wire import CACHE_OPTIONS, CACHE_RETENTION, WireReply, WireRequest, WrongField
from workbench.server.tools import Function, ToolCall, ToolChoice, ToolMode

__all__ = [
    "FunctionCallItem",
    "IncompleteDetails",
    "MessageItem",
    "OutputText",
    "ResponseFailure",
    "ResponseObject",
    "ResponseRequest",
    "ResponseUsage",
]

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


class ResponseTool(WireRequest):
    """A function that the model may call."""

    unsupported = {"defer_loading": (False,), "allowed_callers": (), "output_schema": ()}

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedResponseChoice(WireRequest):
    """This function is to be called."""

    type: Literal["function"]
    name: FunctionName


class PlainText(WireRequest):
    """Free text."""

    type: Literal["text"]


class AnyJson(WireRequest):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaJson(WireRequest):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: Schema = Field(alias="schema")
    strict: bool | None = None


class TextOptions(WireRequest):
    """The form of the answer's text."""

    unsupported = {"verbosity": ("medium",)}

    format: (
        Annotated[
            PlainText | AnyJson | SchemaJson,
            forms_by("type", {"text": PlainText, "json_object": AnyJson, "json_schema": SchemaJson}),
        ]
        | None
    ) = None


class ResponseStreamOptions(WireRequest):
    """What a stream holds besides the answer."""

    include_obfuscation: bool | None = Field(None, description="Pad every piece, so that its size tells nothing.")


class ResponseRequest(ModelRequest):
    """Answer an input. Nothing is stored, so the whole conversation comes with every request."""

    unsupported = {
        "access_programs": ({"cyber": "standard"},),
        "background": (False,),
        "background_options": ({"completion_window": "soonest"},),
        "context_management": ([],),
        "conversation": (),
        "image": ({"context_compression": "auto"},),
        "max_tool_calls": (),
        "moderation": (),
        "previous_response_id": (),
        "prompt": (),
        "prompt_cache_options": CACHE_OPTIONS,
        "prompt_cache_retention": CACHE_RETENTION,
        "reasoning": ({},),
        "truncation": ("disabled",),
    }
    model_config = {
        "json_schema_extra": {"examples": [{"input": "Say hello.", "max_output_tokens": 16, "temperature": 0}]}
    }

    input: Input
    instructions: str | None = Field(None, description="A system message before the input.")
    max_output_tokens: Count | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[Literal["message.output_text.logprobs"]] | None = Field(None, max_length=1)
    tools: Annotated[list[ResponseTool], Field(max_length=128), first_wrong] | None = None
    tool_choice: (
        Annotated[
            Literal["none", "auto", "required"] | NamedResponseChoice,
            forms(
                by_class({str: "word", dict: "function"}),
                "must be none, auto, required or a function",
                {"word": Literal["none", "auto", "required"], "function": NamedResponseChoice},
            ),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = Field(None, description="Accepted and not used: nothing is stored.")
    metadata: dict[str, str] | None = Field(None, max_length=16, description="Given back, and not used.")
    user: str | None = Field(None, max_length=512, description="Accepted and not used.")
    service_tier: str | None = Field(None, max_length=64, description="Accepted and not used.")
    safety_identifier: str | None = Field(None, max_length=512, description="Accepted and not used.")
    prompt_cache_key: str | None = Field(None, max_length=512, description="Accepted and not used.")

    @model_validator(mode="after")
    def _check_together(self) -> ResponseRequest:
        names = [tool.name for tool in self.tools or ()]
        if len(names) != len(set(names)):
            raise WrongField("tools", "has two functions of the same name")
        if isinstance(self.tool_choice, NamedResponseChoice) and self.tool_choice.name not in names:
            raise WrongField("tool_choice", "is wrong: the function is not among the tools")
        if self.tool_choice == "required" and not names:
            raise WrongField("tool_choice", "is only allowed together with tools")
        if self.top_logprobs and not self.wants_logprobs:
            raise WrongField("top_logprobs", "needs message.output_text.logprobs in include")
        try:
            _ = self.structure
        except RequestError as error:
            raise WrongField("text", f"is wrong: {error}") from error
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the tokens' likelihoods are asked for."""
        return bool(self.include)

    @property
    def functions(self) -> tuple[Function, ...]:
        """The functions that are offered."""
        return tuple(Function(tool.name, tool.description or "", tool.parameters) for tool in self.tools or ())

    @property
    def choice(self) -> ToolChoice:
        """Whether and which functions are to be called."""
        if isinstance(self.tool_choice, NamedResponseChoice):
            return ToolChoice(ToolMode.REQUIRED, parallel=False, name=self.tool_choice.name)
        mode = ToolMode(self.tool_choice or "auto") if self.tools else ToolMode.NONE
        return ToolChoice(mode, parallel=self.parallel_tool_calls is not False)

    @property
    def structure(self) -> StructureSpec | None:
        """The form the answer must have."""
        asked = self.text.format if self.text else None
        if isinstance(asked, AnyJson):
            return StructureSpec(StructureKind.JSON_OBJECT)
        return schema_structure(asked.schema_) if isinstance(asked, SchemaJson) else None

    def sampling(self, structure: StructureSpec | None) -> SamplingParams:
        """Our own sampling settings."""
        return SamplingParams(
            max_tokens=self.max_output_tokens,
            temperature=as_temperature(self.temperature),
            top_p=1.0 if self.top_p is None else self.top_p,
            logprobs=self.wants_logprobs,
            top_logprobs=self.top_logprobs or 0,
            structure=structure,
        )

    def conversation(self) -> Conversation:
        """The input as a conversation; calls in a row belong to one message of the assistant."""
        messages = [ChatMessage("system", self.instructions)] if self.instructions else []
        items = [InputMessage(role="user", content=self.input, id=None)] if isinstance(self.input, str) else self.input
        for item in items:
            _append(messages, item)
        return Conversation(tuple(messages), functions=self.functions if self.choice.mode is not ToolMode.NONE else ())


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
