"""A reply on its way into a conversation: asks, takes the pieces, runs the tools, ends. Knows no page."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from dashboards.sources import ChatAsk, ChatSource
from dashboards.toolbox import Toolbox
from workbench.conversation import Conversation, Message, MessageStatus, ReplyFigures, ScoredToken, ToolStep
from workbench.errors import WorkbenchError
from workbench.failure import Failure
from workbench.server.tools import ToolCall, cut_call, new_call_id

__all__ = ["LiveFigures", "RunningReply"]

_log = logging.getLogger(__name__)
# A model that calls functions again and again is stopped after so many rounds.
_MAX_TOOL_TURNS = 4


@dataclass
class LiveFigures:
    """What is measured while a reply runs, of all its turns. Times in seconds on the monotonic clock."""

    started_s: float
    first_token_s: float | None = None
    num_tokens: int = 0
    # Of the last turn: its prompt, where that is known, and what was written before it.
    num_prompt_tokens: int | None = None
    num_tokens_before: int = 0

    def line(self, now_s: float) -> str:
        """The figures so far in words."""
        if self.first_token_s is None:
            return f"waiting for the first token, {now_s - self.started_s:.1f} s"
        decode_s = now_s - self.first_token_s
        rate = f", {(self.num_tokens - 1) / decode_s:.1f} tokens/s" if self.num_tokens > 1 and decode_s > 0 else ""
        return f"{self.num_tokens} tokens{rate}"


class RunningReply:
    """One reply, written into `message` by a task of the running event loop.

    `ask` is what the source is asked first; calls of tools are run by `toolbox` and asked about again.
    """

    def __init__(
        self,
        source: ChatSource,
        message: Message,
        ask: ChatAsk,
        toolbox: Toolbox | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.message = message
        self._source = source
        self._ask = ask
        self._toolbox = toolbox
        self._clock = clock
        self._tokens: list[ScoredToken] = []
        self._changed = asyncio.Event()
        self.live = LiveFigures(clock())
        self._task = asyncio.get_running_loop().create_task(self._run())

    @classmethod
    def of(
        cls, source: ChatSource, conversation: Conversation, ask: ChatAsk, toolbox: Toolbox | None = None
    ) -> RunningReply:
        """Have the conversation's running reply written: `ask` gets its messages."""
        message = conversation.running
        if message is None:
            raise ValueError("the conversation has no running reply")
        ask = replace(ask, messages=tuple(conversation.prompt()), continues=conversation.continues_reply)
        return cls(source, message, ask, toolbox)

    @property
    def is_running(self) -> bool:
        """Whether more may come."""
        return not self._task.done()

    @property
    def tokens(self) -> tuple[ScoredToken, ...]:
        """How likely the tokens were, where that was asked for."""
        return tuple(self._tokens)

    def stop(self) -> None:
        """End it now; what has come stays. The model's place in the batch is free at once."""
        self._task.cancel()

    async def ended(self) -> Message:
        """Wait for the end."""
        await asyncio.wait({self._task})
        return self.message

    async def updates(self, interval_s: float) -> AsyncIterator[Message]:
        """The message whenever it has changed, at most every `interval_s`; ends with the reply."""
        while self.is_running:
            changed = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait({self._task, changed}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            self._changed.clear()
            if self.is_running:
                yield self.message
                await asyncio.wait({self._task}, timeout=interval_s)

    async def _run(self) -> None:
        message = self.message
        # What it says of a text that the model now goes on from.
        before = message.figures if self._ask.continues else None
        try:
            figures = await self._turns()
        except asyncio.CancelledError:
            message.status = MessageStatus.STOPPED
            message.figures = self._measured("abort", before).going_on_from(before)
        except Exception as error:
            message.failure = Failure.of(error)
            message.status = MessageStatus.FAILED
            if not isinstance(error, WorkbenchError):
                _log.error("a reply failed\n%s", message.failure.details)
        else:
            message.figures = figures.going_on_from(before) if figures is not None else before
            is_cut = figures is not None and figures.finish_reason == "abort"
            message.status = MessageStatus.STOPPED if is_cut else MessageStatus.DONE
        message.tokens = self.tokens
        self._changed.set()

    async def _turns(self) -> ReplyFigures | None:
        ask = self._ask
        for turn in range(_MAX_TOOL_TURNS):
            figures, calls = await self._turn(ask)
            if not calls or self._toolbox is None:
                break
            await self._call(turn, calls)
            is_last = turn == _MAX_TOOL_TURNS - 2
            steps = replace(self.message, text="", status=MessageStatus.DONE).as_prompt()
            # The last turn gets no tools, so that it ends in words.
            functions = () if is_last else ask.functions
            ask = replace(
                ask, messages=(*self._ask.messages, *steps), continues=False, must_call=False, functions=functions
            )
        return figures

    async def _turn(self, ask: ChatAsk) -> tuple[ReplyFigures | None, list[ToolCall]]:
        figures, calls, begin = None, [], len(self.message.text)
        self.live.num_prompt_tokens, self.live.num_tokens_before = None, self.live.num_tokens
        async with aclosing(self._source.stream(ask)) as pieces:
            async for piece in pieces:
                self._note_tokens(piece.num_tokens)
                self.live.num_prompt_tokens = piece.num_prompt_tokens or self.live.num_prompt_tokens
                self.message.text += piece.text
                self._tokens += piece.tokens
                calls += piece.calls
                figures = piece.figures or figures
                self._changed.set()
        if ask.functions and figures is not None and figures.finish_reason == "length":
            self._note_cut_call(ask, calls, begin)
        return figures, calls

    def _note_cut_call(self, ask: ChatAsk, calls: list[ToolCall], begin: int) -> None:
        """Show the call that the turn broke off in, if it did, as one that was not made. Our source and others' write
        it as text from `begin` on, or as arguments that are no JSON; where a call had to be made it may be hidden."""
        message = self.message
        if calls and not _is_json(calls[-1].arguments):
            cut = calls.pop()
        elif found := cut_call(message.text[begin:]):
            text, cut = found
            message.text = message.text[:begin] + text
        elif ask.must_call and not calls:
            cut = ToolCall(new_call_id(), "", "")
        else:
            return
        name = cut.name or (ask.functions[0].name if len(ask.functions) == 1 else "")
        message.steps += (ToolStep(cut.call_id, name, cut.arguments, failed=True),)

    def _note_tokens(self, count: int) -> None:
        if count and self.live.first_token_s is None:
            self.live.first_token_s = self._clock()
        self.live.num_tokens += count

    async def _call(self, turn: int, calls: list[ToolCall]) -> None:
        """Run the calls, and turn the text before them into what was said on the way."""
        message = self.message
        said, message.text = message.text, ""
        for number, call in enumerate(calls):
            step = ToolStep(call.call_id, call.name, call.arguments, turn=turn, said="" if number else said)
            message.steps += (step,)
            self._changed.set()
            result = await self._toolbox.call(call.name, call.arguments)
            done = replace(step, result=result.text, failed=result.failed)
            message.steps = tuple(done if one is step else one for one in message.steps)
            self._changed.set()

    def _measured(self, finish_reason: str, before: ReplyFigures | None) -> ReplyFigures:
        """Figures of a reply that was stopped before the engine told its own; `before` are those of the text that it
        goes on from."""
        live, now_s = self.live, self._clock()
        decode_s = now_s - live.first_token_s if live.first_token_s else 0.0
        state = self._source.state()
        # Of earlier turns the prompt has the text.
        prompt = live.num_prompt_tokens - live.num_tokens_before if live.num_prompt_tokens is not None else None
        if prompt is None and before is not None:
            prompt = before.context_tokens
        return ReplyFigures(
            model=state.model,
            finish_reason=finish_reason,
            num_prompt_tokens=prompt,
            max_context=state.max_context,
            num_generated_tokens=live.num_tokens,
            ttft_s=live.first_token_s - live.started_s if live.first_token_s else None,
            total_s=now_s - live.started_s,
            tokens_per_s=(live.num_tokens - 1) / decode_s if live.num_tokens > 1 and decode_s > 0 else None,
        )


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return False
    return True
