"""One running reply: submits, streams the text on, and tells how it ended. Knows no widget."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from widgets.chat_prompt import heat_of
from widgets.coalescer import Coalescer
from workbench.conversation import Message, MessageStatus, ReplyFigures
from workbench.errors import RequestAborted, WorkbenchError
from workbench.failure import Failure
from workbench.session import Session, SessionState

if TYPE_CHECKING:
    from workbench.engine import Generation, Timings
    from workbench.engine.logprobs import TokenLogprobs
    from workbench.session import LoadedFacts

__all__ = ["Reply", "ReplyEnd"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplyEnd:
    """How a reply ended: its status, and what there is to tell of timings, finish reason, seed, failure and tokens."""

    status: MessageStatus
    finish_reason: str | None = None
    timings: Timings | None = None
    failure: Failure | None = None
    seed: int | None = None
    scores: tuple[TokenLogprobs, ...] = ()

    def write_into(self, message: Message, session: Session) -> None:
        """Let a message know of its end: figures, failure, and its tokens where they were asked for and can be read."""
        status = session.status
        message.status, message.failure, message.num_given_chars = self.status, self.failure, 0
        message.figures = self.figures(status.facts)
        can_read = bool(self.scores) and status.state is SessionState.READY
        message.tokens = heat_of(session.llm, self.scores) if can_read else ()

    def figures(self, facts: LoadedFacts | None) -> ReplyFigures | None:
        """What a conversation keeps of it; None where the request never ran. `facts` are of the loaded model."""
        timings = self.timings
        if timings is None:
            return None
        return ReplyFigures(
            model=facts.model if facts else "",
            finish_reason=self.finish_reason,
            num_prompt_tokens=timings.num_prompt_tokens,
            num_cached_tokens=timings.num_cached_tokens,
            num_generated_tokens=timings.num_generated_tokens,
            ttft_s=timings.ttft_s,
            total_s=timings.total_s,
            tokens_per_s=timings.decode_tokens_per_s,
            max_context=facts.max_context if facts else None,
            seed=self.seed,
        )


class Reply:
    """Runs one request on a thread of its own.

    `submit()` starts the request. `on_text(text)` gets the text in pieces, at most every `interval_s` seconds;
    `on_end(end)` comes once, after the last of them. `stop()` may come at any time, also before the request started.
    """

    def __init__(
        self,
        submit: Callable[[], Generation],
        on_text: Callable[[str], None],
        on_end: Callable[[ReplyEnd], None],
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._submit = submit
        self._on_end = on_end
        self._coalescer = Coalescer(on_text, interval_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._generation: Generation | None = None
        self._scores: list[TokenLogprobs] = []
        self._started_s = clock()
        self._first_token_s: float | None = None
        self._num_tokens = 0
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="workbench-reply", daemon=True)

    def start(self) -> None:
        """Start the request; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Abort the request; what has come stays. Harmless when it has ended."""
        with self._lock:
            self._is_stopped = True
            generation = self._generation
        if generation is not None:
            generation.abort()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; True when it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def figures_so_far(self) -> str:
        """Tokens and speed up to now, in words."""
        now_s, first_s = self._clock(), self._first_token_s
        if first_s is None:
            return f"waiting for the first token, {now_s - self._started_s:.1f} s"
        count = self._num_tokens
        rate = f", {(count - 1) / (now_s - first_s):.1f} tokens/s" if count > 1 and now_s > first_s else ""
        return f"{count} tokens{rate}"

    def _run(self) -> None:
        with self._coalescer:
            end = self._stream()
        # A request keeps its engine alive; a reply that has ended must not.
        with self._lock:
            self._generation = None
        try:
            self._on_end(end)
        except Exception:
            _log.exception("the end of a reply could not be shown")

    def _stream(self) -> ReplyEnd:
        """Pass the chunks on until the last one, or until it fails."""
        finish_reason = None
        try:
            generation = self._submit()
            self._hold(generation)
            for chunk in generation:
                self._note(chunk)
                if chunk.text:
                    self._coalescer.put(chunk.text)
                finish_reason = chunk.finish_reason or finish_reason
        except RequestAborted:
            return self._end(MessageStatus.STOPPED, "abort")
        except Exception as error:
            failure = Failure.of(error)
            if not isinstance(error, WorkbenchError):
                _log.error("a reply failed\n%s", failure.details)
            return self._end(MessageStatus.FAILED, "error", failure)
        reason = None if finish_reason is None else str(getattr(finish_reason, "value", finish_reason))
        return self._end(MessageStatus.STOPPED if reason == "abort" else MessageStatus.DONE, reason)

    def _hold(self, generation: Any) -> None:
        with self._lock:
            self._generation = generation
            is_stopped = self._is_stopped
        if is_stopped:
            generation.abort()

    def _note(self, chunk: Any) -> None:
        if chunk.token_ids and self._first_token_s is None:
            self._first_token_s = self._clock()
        self._num_tokens += len(chunk.token_ids)
        self._scores.extend(chunk.logprobs)

    def _end(self, status: MessageStatus, reason: str | None, failure: Failure | None = None) -> ReplyEnd:
        generation = self._generation
        timings = None if generation is None else generation.timings
        seed = getattr(generation, "seed", None)
        return ReplyEnd(status, reason, timings, failure, seed, tuple(self._scores))
