"""What goes over the WebSocket: prompts in, and pieces of text, marks and errors out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workbench.server.protocol.completions import Text
from workbench.server.protocol.forms import first_wrong
from workbench.server.protocol.messages import Message
from workbench.server.protocol.sampling import Count, GenerationRequest
from workbench.server.protocol.wire import WireReply, WireRequest, WrongField

__all__ = ["CancelRequest", "EndFrame", "StreamRequest", "TextFrame"]


class StreamRequest(GenerationRequest):
    """A prompt, or a conversation. With format "json" every frame is a JSON object, so no text can pass for a mark.

    Pieces of text hold neither likelihoods nor calls: fields that ask for them, or shape a whole answer, are accepted
    with the value that asks for nothing.
    """

    unsupported = {
        **GenerationRequest.unsupported,
        "best_of": (1,),
        "echo": (False,),
        "logprobs": (False,),
        "parallel_tool_calls": (True,),
        "suffix": ("",),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "top_logprobs": (0,),
    }

    prompt: Text | None = None
    messages: Annotated[list[Message], first_wrong] | None = Field(None, min_length=1, max_length=2048)
    max_tokens: Count = 50
    format: Literal["text", "json"] = "text"

    @model_validator(mode="after")
    def _check_stream(self) -> StreamRequest:
        if (self.prompt is None) == (self.messages is None):
            raise WrongField("prompt", "or messages must be given, and not both")
        if (self.n or 1) != 1:
            raise WrongField("n", "must be 1: a socket gives one answer at a time")
        return self


class CancelRequest(WireRequest):
    """Stop the answer that is being given."""

    cancel: Literal[True]


class TextFrame(WireReply):
    """A piece of the answer."""

    text: str


class EndFrame(WireReply):
    """The answer is complete."""

    done: Literal[True] = True
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
