"""Text completions on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from workbench.server.protocol.forms import first_wrong, forms
from workbench.server.protocol.sampling import GenerationRequest, TokenId
from workbench.server.protocol.usage import Usage
from workbench.server.protocol.wire import SparseReply, WireReply, WrongField

__all__ = [
    "Completion",
    "CompletionChoice",
    "CompletionChunk",
    "CompletionLogprobs",
    "CompletionRequest",
    "Prompt",
    "prompts_of",
]


def _prompt_form(value: Any) -> str | None:
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    first = {str: "texts", int: "ids", list: "several_ids"}
    return first.get(type(value[0])) if value else "texts"


Text = Annotated[str, Field(min_length=1)]
Ids = Annotated[list[TokenId], Field(min_length=1), first_wrong]
Prompt = Annotated[
    str | list[str] | list[int] | list[list[int]],
    forms(
        _prompt_form,
        "must be a text, token ids, or a list of either",
        {
            "text": Text,
            "texts": Annotated[list[Text], Field(min_length=1), first_wrong],
            "ids": Ids,
            "several_ids": Annotated[list[Ids], Field(min_length=1), first_wrong],
        },
    ),
]


def prompts_of(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """The prompts that a field of type `Prompt` holds, in order."""
    is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
    return cast("list[str | list[int]]", [prompt] if is_one else prompt)


class CompletionRequest(GenerationRequest):
    """Go on from one or several prompts, each a text or token ids."""

    unsupported = {**GenerationRequest.unsupported, "add_special_tokens": (True,), "suffix": ("",)}

    prompt: Prompt = Field(description="A text, token ids, or a list of either.")
    max_tokens: int | None = Field(None, ge=0, lt=2**31, description="Default 16. 0 needs echo.")
    echo: bool | None = Field(None, description="Give the prompt back before its continuation.")
    logprobs: int | None = Field(None, ge=0, le=5, description="Report this many likeliest tokens at every position.")
    best_of: int | None = Field(None, ge=1, le=20, description="Make this many answers and give the n likeliest.")

    model_config = {
        "json_schema_extra": {"examples": [{"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}]}
    }

    @model_validator(mode="after")
    def _check_completion(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise WrongField("best_of", "must be at least n")
        if self.best_of is not None and self.best_of > (self.n or 1) and self.stream:
            raise WrongField("best_of", "above n cannot be streamed: which answers are best is known at the end")
        if self.max_tokens == 0 and not self.echo:
            raise WrongField("max_tokens", "0 is only allowed together with echo")
        if self.max_tokens == 0 and ((self.n or 1) > 1 or (self.best_of or 1) > 1):
            raise WrongField("max_tokens", "0 gives one answer: leave out n and best_of")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt, in order."""
        return prompts_of(self.prompt)


class CompletionLogprobs(WireReply):
    """How likely the tokens were. The lists have one entry per token; the first one of a prompt has no likelihood."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(WireReply):
    """One answer. `index` counts through the prompts and, for each, its n answers."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None


class Completion(WireReply):
    """The continuations of the prompts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str


class CompletionChunk(SparseReply):
    """One event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    system_fingerprint: str
    obfuscation: str | None = None
