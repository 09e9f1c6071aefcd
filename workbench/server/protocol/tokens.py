"""Texts and token ids on the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from workbench.server.chat_messages import Conversation
from workbench.server.protocol.chat import TemplateOptions
from workbench.server.protocol.forms import first_wrong
from workbench.server.protocol.messages import Message
from workbench.server.protocol.model_choice import ModelRequest
from workbench.server.protocol.sampling import TokenId
from workbench.server.protocol.tools import Tools, functions_of
from workbench.server.protocol.wire import WireReply, WrongField

__all__ = ["DetokenizeRequest", "Detokenized", "TokenizeRequest", "Tokenized"]


class TokenizeRequest(ModelRequest):
    """A text, or a conversation as the model sees it."""

    model_config = {"json_schema_extra": {"examples": [{"prompt": "Hello there"}]}}

    prompt: str | None = None
    messages: Annotated[list[Message], first_wrong] | None = Field(None, min_length=1, max_length=2048)
    add_special_tokens: bool | None = Field(None, description="For a prompt: the tokens that the model begins with.")
    add_generation_prompt: bool | None = Field(None, description="For messages: the beginning of the answer.")
    tools: Tools | None = Field(None, description="For messages: the functions that the model is told of.")
    chat_template_kwargs: TemplateOptions | None = Field(None, description="For messages.")
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _check_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise WrongField("prompt", "or messages must be given, and not both")
        if self.messages is not None and self.add_special_tokens is not None:
            raise WrongField("add_special_tokens", "is only allowed together with prompt")
        for name in ("add_generation_prompt", "tools", "chat_template_kwargs"):
            if self.prompt is not None and getattr(self, name) is not None:
                raise WrongField(name, "is only allowed together with messages")
        return self

    def conversation(self) -> Conversation:
        """The messages as a conversation."""
        messages = tuple(message.message() for message in self.messages or ())
        return Conversation(
            messages,
            functions_of(self.tools),
            add_generation_prompt=self.add_generation_prompt is not False,
            enable_thinking=None if self.chat_template_kwargs is None else self.chat_template_kwargs.enable_thinking,
        )


class Tokenized(WireReply):
    """The token ids. `max_model_len` is how many of them, prompt and answer together, one request may have."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(ModelRequest):
    """Token ids."""

    model_config = {"json_schema_extra": {"examples": [{"tokens": [504, 3575]}]}}

    tokens: Annotated[list[TokenId], first_wrong] = Field(max_length=2**20)
    skip_special_tokens: bool | None = Field(None, description="Default false.")


class Detokenized(WireReply):
    """The text that the ids spell."""

    prompt: str
