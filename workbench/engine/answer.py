"""One answer on its way: its sequence, its text and its times."""

from __future__ import annotations

import logging
from collections.abc import Callable

from workbench.engine.finish import AnswerText
from workbench.engine.messages import Request, Usage
from workbench.engine.sequence import Sequence

__all__ = ["Answer"]

_log = logging.getLogger(__name__)


class Answer:
    """One sequence with its text and its times."""

    def __init__(self, request: Request, sequence: Sequence, decode: Callable[[list[int]], str]) -> None:
        self.request = request
        self.sequence = sequence
        self.text = AnswerText(sequence, decode)
        self.started_s: float | None = None
        self.first_token_s: float | None = None
        self._last_token_s = 0.0

    def take_sent(self, token_id: int) -> None:
        """Go past a token whose text has been sent: as after a preemption, only its keys and values are missing."""
        matcher = self.sequence.matcher
        if matcher is not None:
            matcher.accept(token_id)
        self.sequence.token_ids.append(token_id)
        self.text.advance()

    def note_token(self, now_s: float) -> float | None:
        """A token has come. Seconds since the one before it; None for the first."""
        before_s, self._last_token_s = self._last_token_s, now_s
        if self.first_token_s is None:
            self.first_token_s = now_s
            return None
        return now_s - before_s

    def usage(self, now_s: float) -> Usage:
        """What the request took, ended `now_s`."""
        sequence = self.sequence
        return Usage(
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_generated_tokens=sequence.num_generated_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            submitted_s=self.request.submitted_s,
            first_token_s=self.first_token_s,
            finished_s=now_s,
            started_s=self.started_s,
        )

    def last_text(self) -> str:
        """What was held back of an answer that is cut short; nothing where its text cannot be made."""
        try:
            return self.text.flush()
        except Exception:  # the tokenizer is not ours, and an abort must always end a request
            _log.exception("request %s: its last text is lost", self.request.request_id)
            return ""
