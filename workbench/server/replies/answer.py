"""One answer as it comes: its text, the calls in it, the log-probabilities that go with the text, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.engine import Chunk, FinishReason, SamplingParams, TokenLogprobs
from workbench.server.errors import ApiError
from workbench.server.served_model import ServedModel
from workbench.server.token_logprobs import LogprobAligner
from workbench.server.tools import TextPiece, ToolCall, ToolCallParser, ToolMode

__all__ = ["AnswerPart", "AnswerReader", "FinishWord"]

FinishWord = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class AnswerPart:
    """What one chunk added. `finish_reason` comes with the last one."""

    text: str
    calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishWord | None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell yet."""
        return not (self.text or self.calls or self.logprobs or self.finish_reason)


class AnswerReader:
    """Reads the chunks of one answer. Where functions may be called, what is written as a call is taken out of the
    text; where they must be, there is no text: what is left of such an answer is a call that was cut short."""

    def __init__(self, model: ServedModel, params: SamplingParams, tools: ToolMode = ToolMode.NONE) -> None:
        end_ids = model.llm.tokenizer.eos_token_ids | set(params.stop_token_ids)
        silent_ids = model.tokens.special_ids if params.skip_special_tokens else frozenset()
        self._aligner = LogprobAligner(model.tokens, end_ids, silent_ids) if params.logprobs else None
        self._parser = None if tools is ToolMode.NONE else ToolCallParser()
        self._may_have_text = tools is not ToolMode.REQUIRED
        self._has_calls = False

    def read(self, chunk: Chunk) -> AnswerPart:
        """What the chunk adds. Raises a 503 when somebody else stopped the answer."""
        if chunk.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
            raise ApiError(503, "the answer was stopped before its end", code="request_aborted")
        logprobs = tuple(self._aligner.take(chunk)) if self._aligner else ()
        text, calls = self._split(chunk)
        return AnswerPart(text, calls, logprobs, self._finish_word(chunk))

    def _split(self, chunk: Chunk) -> tuple[str, tuple[ToolCall, ...]]:
        if self._parser is None:
            return chunk.text, ()
        pieces = self._parser.feed(chunk.text)
        if chunk.finish_reason is not None:
            pieces += self._parser.finish()
        calls = tuple(piece for piece in pieces if isinstance(piece, ToolCall))
        self._has_calls |= bool(calls)
        text = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
        return text if self._may_have_text else "", calls

    def _finish_word(self, chunk: Chunk) -> FinishWord | None:
        if chunk.finish_reason is None:
            return None
        if chunk.finish_reason is FinishReason.STOP and self._has_calls:
            return "tool_calls"
        return "stop" if chunk.finish_reason is FinishReason.STOP else "length"
