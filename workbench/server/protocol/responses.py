"""What the Responses API can be asked, without anything that would have to be remembered between requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import RequestError
from workbench.server.chat_messages import ChatMessage, Conversation
from workbench.server.protocol.forms import by_class, first_wrong, forms, forms_by
from workbench.server.protocol.model_choice import ModelRequest
from workbench.server.protocol.response_input import Input, input_messages
from workbench.server.protocol.sampling import Count, as_temperature
from workbench.server.protocol.structure import JsonObjectFormat, Schema, TextFormat, schema_structure
from workbench.server.protocol.tools import FunctionName, tool_choice_of
from workbench.server.protocol.wire import CACHE_OPTIONS, CACHE_RETENTION, WireRequest, WrongField
from workbench.server.tools import Function, ToolChoice, ToolMode

__all__ = ["ResponseRequest"]


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
            TextFormat | JsonObjectFormat | SchemaJson,
            forms_by("type", {"text": TextFormat, "json_object": JsonObjectFormat, "json_schema": SchemaJson}),
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
        _ = self.choice
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
        return tool_choice_of(self.tool_choice, self.functions, self.parallel_tool_calls)

    @property
    def structure(self) -> StructureSpec | None:
        """The form the answer must have."""
        asked = self.text.format if self.text else None
        if isinstance(asked, JsonObjectFormat):
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
        told = [ChatMessage("system", self.instructions)] if self.instructions else []
        functions = self.functions if self.choice.mode is not ToolMode.NONE else ()
        return Conversation((*told, *input_messages(self.input)), functions=functions)
