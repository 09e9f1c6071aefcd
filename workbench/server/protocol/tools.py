"""Functions that a model may call, and the calls it makes, on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from workbench.server.protocol.forms import by_class, first_wrong, forms
from workbench.server.protocol.wire import WireReply, WireRequest, WrongField
from workbench.server.tools import Function, ToolChoice, ToolMode

__all__ = [
    "FunctionCall",
    "FunctionName",
    "Tool",
    "ToolCallReply",
    "ToolCallRequest",
    "ToolChoiceField",
    "Tools",
    "functions_of",
    "tool_choice_of",
]

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionDefinition(WireRequest):
    """What a function is for and which arguments it takes."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments, an object.")
    strict: bool | None = Field(None, description="Arguments always follow the schema, whatever this says.")


class Tool(WireRequest):
    """A function that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(WireRequest):
    """The name of a function."""

    name: FunctionName


class NamedChoice(WireRequest):
    """This function is to be called."""

    type: Literal["function"]
    function: ChosenFunction

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name


class _Named(Protocol):
    """What names a function, in the words of either API."""

    @property
    def name(self) -> str: ...


class FunctionCall(WireReply):
    """A call of a function; `arguments` is JSON text."""

    name: str
    arguments: str


class FunctionCallRequest(WireRequest):
    """A call that the model made earlier."""

    name: FunctionName
    arguments: str


class ToolCallRequest(WireRequest):
    """A call that the model made earlier, with the id that its result refers to."""

    id: str = Field(max_length=256)
    type: Literal["function"]
    function: FunctionCallRequest


class ToolCallReply(WireReply):
    """A call that the model makes."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


def _check_names(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    if len(names) != len(set(names)):
        raise ValueError("two functions have the same name")
    return tools


Tools = Annotated[list[Tool], Field(max_length=128), first_wrong, AfterValidator(_check_names)]
ToolChoiceField = Annotated[
    Literal["none", "auto", "required"] | NamedChoice,
    forms(
        by_class({str: "word", dict: "function"}),
        "must be none, auto, required or a function",
        {"word": Literal["none", "auto", "required"], "function": NamedChoice},
    ),
]


def functions_of(tools: list[Tool] | None) -> tuple[Function, ...]:
    """The functions that are offered."""
    return tuple(
        Function(tool.function.name, tool.function.description or "", tool.function.parameters) for tool in tools or ()
    )


def tool_choice_of(choice: str | _Named | None, functions: tuple[Function, ...], parallel: bool | None) -> ToolChoice:
    """Our own form of the choice. Raises WrongField for a choice without tools, or of a function that is not there."""
    if choice is not None and not isinstance(choice, str):
        if choice.name not in {function.name for function in functions}:
            raise WrongField("tool_choice", "is wrong: the function is not among the tools")
        return ToolChoice(ToolMode.REQUIRED, parallel=False, name=choice.name)
    if choice == "required" and not functions:
        raise WrongField("tool_choice", "is only allowed together with tools")
    mode = ToolMode(choice or "auto") if functions else ToolMode.NONE
    return ToolChoice(mode, parallel=parallel is not False)
