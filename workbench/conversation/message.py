"""One message of a chat: what was said, by whom, and what there is to tell about a reply. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from workbench.conversation.reply_figures import ReplyFigures
from workbench.conversation.token_heat import ScoredToken
from workbench.failure import Failure

__all__ = ["ROLES", "Message", "MessageStatus", "ToolStep"]

ROLES = ("user", "assistant")


class MessageStatus(Enum):
    """Where a message stands. STOPPED replies keep the text they had."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ToolStep:
    """A function that the model called on the way to its reply.

    `arguments` is JSON text; `result` is None until it is there. Without a result `failed` marks a call that was never
    made, as the reply broke off in it: its arguments are as far as they had come. Calls that were made together share
    their `turn`; `said` is what the model wrote before it.
    """

    call_id: str
    name: str
    arguments: str
    result: str | None = None
    failed: bool = False
    turn: int = 0
    said: str = ""

    @property
    def is_cut(self) -> bool:
        """Whether the reply broke off in the call."""
        return self.failed and self.result is None


@dataclass
class Message:
    """One message; a running reply grows in place.

    `number` is its own in the conversation and never used again, `parent` the number of the message it follows (None
    for a first one). `num_given_chars` of the text were there before the model began: it went on writing them.
    `figures`, `failure`, `steps` and `tokens` (how sure the model was) belong to replies.
    """

    number: int
    role: str
    text: str = ""
    status: MessageStatus = MessageStatus.DONE
    parent: int | None = None
    num_given_chars: int = 0
    figures: ReplyFigures | None = None
    failure: Failure | None = None
    steps: tuple[ToolStep, ...] = ()
    tokens: tuple[ScoredToken, ...] = field(default=(), repr=False)

    @property
    def is_running(self) -> bool:
        """Whether the model is still writing it."""
        return self.status is MessageStatus.RUNNING

    @property
    def note(self) -> str:
        """The line under a finished reply: whether it was cut, tokens, speed, time to the first token, context."""
        parts = []
        if self.status is MessageStatus.STOPPED:
            parts.append("Stopped")
        elif self.figures is not None and self.figures.finish_reason == "length":
            parts.append("Cut at the length limit")
        if self.figures is not None and not self.is_running:
            parts.append(self.figures.line())
        return ", ".join(part for part in parts if part)

    def as_prompt(self) -> list[dict[str, object]]:
        """The message as chat APIs take it: its tool steps (calls, then results) come before its text."""
        prompt: list[dict[str, object]] = []
        for turn in sorted({step.turn for step in self.steps}):
            steps = [step for step in self.steps if step.turn == turn and step.result is not None]
            if steps:
                calls = [_as_call(step) for step in steps]
                prompt.append({"role": "assistant", "content": steps[0].said, "tool_calls": calls})
                prompt += [{"role": "tool", "content": step.result, "tool_call_id": step.call_id} for step in steps]
        text = self.text[: self.num_given_chars] if self.is_running else self.text
        if text or not prompt:
            prompt.append({"role": self.role, "content": text})
        return prompt

    def as_dict(self) -> dict[str, object]:
        """What a page needs to show it, as plain JSON values."""
        return {
            "number": self.number,
            "role": self.role,
            "text": self.text,
            "status": self.status.value,
            "note": self.note,
            "failure": self.failure.as_dict() if self.failure else None,
        }


def _as_call(step: ToolStep) -> dict[str, object]:
    return {"id": step.call_id, "type": "function", "function": {"name": step.name, "arguments": step.arguments}}
