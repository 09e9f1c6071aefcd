"""What other programs may call through `gradio_client`: typed functions with names of their own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from dashboards.sources import ChatAsk
from workbench.conversation import Conversation, import_conversations
from workbench.engine import SamplingParams
from workbench.errors import ConfigError, WorkbenchError

__all__ = ["add_programs"]


def add_programs(parts: AppParts) -> None:
    """Add the functions to the Blocks that is open."""

    async def chat(message: str, history: str = "[]", system: str = "", sampling: str = "{}") -> AsyncIterator[str]:
        """The reply to a message, as it grows.

        history is a JSON list of {"role", "content"}, sampling a JSON object of sampling settings.
        """
        try:
            conversation = _conversation(history, system)
            conversation.add("user", message)
            ask = ChatAsk(messages=tuple(conversation.prompt()), params=_params(sampling))
            text = ""
            async with aclosing(parts.source.stream(ask)) as pieces:
                async for piece in pieces:
                    if piece.text:
                        text += piece.text
                        yield text
            if not text:
                yield text
        except WorkbenchError as error:
            raise shown_error(error) from None

    async def status() -> dict:
        """Which model answers, and whether it is ready."""
        state = parts.source.state()
        return {
            "model": state.model,
            "is_ready": state.is_ready,
            "has_crashed": state.has_crashed,
            "max_context": state.max_context,
            "words": state.words,
        }

    async def score(text: str, num_alternatives: int = 5) -> list:
        """The tokens of a text, with their likelihoods and the likeliest alternatives."""
        try:
            tokens = await parts.source.score(text, num_alternatives=int(num_alternatives))
        except WorkbenchError as error:
            raise shown_error(error) from None
        return [
            {
                "text": token.text,
                "logprob": token.logprob,
                "alternatives": [{"text": a.text, "logprob": a.logprob} for a in token.alternatives],
            }
            for token in tokens
        ]

    gr.api(chat, api_name="chat", concurrency_limit=None)
    gr.api(status, api_name="status", concurrency_limit=None)
    gr.api(score, api_name="score", concurrency_limit=None)


def _conversation(history: str, system: str) -> Conversation:
    if not history.lstrip().startswith("["):
        raise ConfigError("history: must be a JSON list of messages")
    (conversation,) = import_conversations(history)
    conversation.system = system or conversation.system
    return conversation


def _params(sampling: str) -> SamplingParams:
    try:
        options: Any = json.loads(sampling or "{}")
    except ValueError as error:
        raise ConfigError(f"sampling: not JSON ({error})") from None
    if not isinstance(options, dict):
        raise ConfigError("sampling: must be a JSON object")
    return SamplingParams.from_options(options)
