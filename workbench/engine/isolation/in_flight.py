"""What was sent to an engine and is not answered yet, so that its end can be told to everybody who waits."""

from __future__ import annotations

import threading
from typing import Any

from workbench.engine.messages import Chunk, Failed, Request
from workbench.engine.sequence import FinishReason
from workbench.errors import WorkbenchError

__all__ = ["InFlight"]


class InFlight:
    """Requests with the answers that still run, and questions without their reply. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, set[int]] = {}
        self._questions: set[str] = set()
        self.is_closed = False

    def open(self, message: Any) -> bool:
        """Note a message that is about to be sent; False once nothing may be sent any more."""
        with self._lock:
            if self.is_closed:
                return False
            if isinstance(message, Request):
                self._answers[message.request_id] = set(range(message.params.n))
            elif hasattr(message, "reply_id"):
                self._questions.add(message.reply_id)
            return True

    def note(self, message: Any) -> None:
        """Take what has come back: the last chunk of an answer, or a reply."""
        if not isinstance(message, Chunk):
            with self._lock:
                self._questions.discard(message.reply_id)
        elif message.finish_reason is not None:
            with self._lock:
                running = self._answers.get(message.request_id, set())
                running.discard(message.index)
                if not running:
                    self._answers.pop(message.request_id, None)

    def close(self, error: WorkbenchError) -> list[Chunk | Failed]:
        """Let nothing more be sent; what everybody who still waits must be told."""
        with self._lock:
            self.is_closed = True
            answers, self._answers = self._answers, {}
            questions, self._questions = self._questions, set()
        ends: list[Chunk | Failed] = [Failed(reply_id, error) for reply_id in sorted(questions)]
        for request_id, indexes in answers.items():
            ends += [Chunk(request_id, i, finish_reason=FinishReason.ERROR, error=error) for i in sorted(indexes)]
        return ends
