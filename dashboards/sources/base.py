"""What a chat is asked of, whichever it is: the engine of this process, or an endpoint somewhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workbench.conversation import ContextUse, ReplyFigures, ScoredToken
from workbench.engine import SamplingParams
from workbench.server.tools import Function, ToolCall

__all__ = ["ChatAsk", "ChatSource", "ReplyPiece", "SourceState"]

Messages = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class ChatAsk:
    """A reply that is wanted: to `messages`, or to the bare text `prompt`.

    `continues` goes on with the last message, which is the model's. `functions` may be called by the model, and must
    be when `must_call`. `thinking` switches reasoning where the template knows such a switch. `model` None is the
    source's own.
    """

    messages: Messages = ()
    prompt: str | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    functions: tuple[Function, ...] = ()
    must_call: bool = False
    continues: bool = False
    thinking: bool | None = None
    model: str | None = None


@dataclass(frozen=True)
class ReplyPiece:
    """What one step added to a reply. `num_prompt_tokens` comes with the first piece where it is known, `figures` with
    the last."""

    text: str = ""
    num_tokens: int = 0
    tokens: tuple[ScoredToken, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    num_prompt_tokens: int | None = None
    figures: ReplyFigures | None = None


@dataclass(frozen=True)
class SourceState:
    """Where a source stands. `has_crashed` marks an engine that died; `words` say what there is to say."""

    words: str
    is_ready: bool = False
    has_crashed: bool = False
    model: str = ""
    max_context: int | None = None


class ChatSource(Protocol):
    """Answers asks. All coroutines run on the app's event loop; errors are those of `workbench.errors`."""

    is_remote: bool

    def state(self) -> SourceState:
        """Where it stands now, at once."""
        ...

    async def refresh(self) -> None:
        """Look again what there is to know from elsewhere."""
        ...

    async def models(self) -> list[str]:
        """Names that `ChatAsk.model` may have."""
        ...

    def stream(self, ask: ChatAsk) -> AsyncIterator[ReplyPiece]:
        """The reply piece by piece; closing the iterator stops the model at once."""
        ...

    async def context_use(
        self, messages: Messages, draft: str, functions: tuple[Function, ...] = (), thinking: bool | None = None
    ) -> ContextUse | None:
        """How full the context would be with `draft` added, `functions` offered and reasoning switched; None where that
        cannot be counted."""
        ...

    async def score(self, text: str, messages: Messages = (), *, num_alternatives: int = 5) -> tuple[ScoredToken, ...]:
        """How likely each token of a text is, as the reply to `messages` where they are given."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
