"""A streaming chat over a session's engine. Knows messages and replies, not how text is generated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from widgets.conversation import Conversation, Message, MessageStatus
from widgets.front_end import module_text, style_text
from widgets.part import Part
from widgets.reply import Reply, ReplyEnd
from workbench.errors import EngineStoppedError, RequestError, WorkbenchError
from workbench.failure import Failure
from workbench.session import Session, SessionState, SessionStatus
from workbench.twin import Twin

__all__ = ["ChatBox"]

# Text goes to the browser at most this often.
_TEXT_INTERVAL_S = 1 / 15
_DEFAULT_SAMPLING = {"max_tokens": 512}
_ROLES = {"user": "you", "assistant": "model"}


class ChatBox(Part, anywidget.AnyWidget):
    """Chat with what `session` has loaded; one reply at a time.

    `system` is the system prompt, `sampling` any keywords of `LlamaGPU.submit` (by default greedy, 512 tokens at
    most). Model text is only ever shown as text: markup in it stays inert.
    """

    _esm = module_text("chat_box")
    _css = style_text()

    # While a reply runs its text goes out in pieces by custom messages; this list follows when it ends.
    messages = traitlets.List().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    ready = traitlets.Bool(False).tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)

    # Until there are a session to leave and a reply to stop.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _reply: Reply | None = None

    def __init__(
        self, session: Session, *, system: str | None = None, sampling: Mapping[str, Any] | None = None
    ) -> None:
        self._session = session
        self._sampling = dict(_DEFAULT_SAMPLING if sampling is None else sampling)
        self._conversation = Conversation(system)
        # Callbacks come on the kernel's main thread or a subshell's, text on the reply's threads.
        self._lock = threading.RLock()
        super().__init__()
        self._follow_session(session.status)
        self._forget = session.observe(self._follow_session)
        self.on_msg(self._receive)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages so far, a running reply with the text it has."""
        with self._lock:
            return self._conversation.messages

    def ask(self, text: str) -> None:
        """Send a message, as a click on Send does; returns at once, the reply streams into the widget.

        Raises RequestError for an empty message or while a reply runs, EngineStoppedError while nothing is loaded.
        """
        with self._lock:
            if not text.strip():
                raise RequestError("the message is empty: write something to send")
            if self.busy:
                raise RequestError("a reply is running: stop it or wait for its end")
            if self._session.status.state is not SessionState.READY:
                raise EngineStoppedError("no model is loaded")
            self._conversation.add("user", text)
            prompt = self._conversation.prompt()
            message = self._conversation.add("assistant", status=MessageStatus.RUNNING)
            self._reply = Reply(
                lambda: self._session.submit(messages=prompt, **self._sampling),
                lambda piece: self._append(message, piece),
                lambda end: self._end(message, end),
                interval_s=_TEXT_INTERVAL_S,
            )
            self._show_messages(busy=True)
            self._reply.start()

    def stop(self) -> None:
        """Stop the reply that runs and keep what has come. Harmless when none runs."""
        reply = self._reply
        if reply is not None:
            reply.stop()

    def clear(self) -> None:
        """Forget the conversation. Raises RequestError while a reply runs."""
        with self._lock:
            if self.busy:
                raise RequestError("a reply is running: stop it or wait for its end")
            self._conversation.clear()
            self._show_messages(busy=False)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the reply that runs; True when none runs any more."""
        reply = self._reply
        return reply is None or reply.join(timeout_s)

    def close(self) -> None:
        """Stop a running reply and take the widget away."""
        self._forget()
        self.stop()
        super().close()

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        """What the browser says. Refusals go back to it, so that the user's text is not lost."""
        kind = content.get("type")
        if kind == "hello":
            self._repeat_running_text()
        elif kind == "stop":
            self.stop()
        elif kind in ("ask", "clear"):
            try:
                self.ask(str(content.get("text"))) if kind == "ask" else self.clear()
            except WorkbenchError as error:
                self.send({"type": "refused", **Failure.of(error).as_dict()})
            else:
                self.send({"type": "accepted"})

    def _repeat_running_text(self) -> None:
        with self._lock:
            for message in self._conversation.messages:
                if message.status is MessageStatus.RUNNING:
                    self.send({"type": "text", "number": message.number, "text": message.text})

    def _append(self, message: Message, piece: str) -> None:
        with self._lock:
            offset = _length_in_browser(message.text)
            message.text += piece
            self.send({"type": "append", "number": message.number, "offset": offset, "text": piece})

    def _end(self, message: Message, end: ReplyEnd) -> None:
        with self._lock:
            message.status = end.status
            message.note = _note(end)
            message.failure = end.failure
            self._show_messages(busy=False)

    def _show_messages(self, *, busy: bool) -> None:
        with self.hold_sync():
            self.messages = [message.as_dict() for message in self._conversation.messages]
            self.busy = busy

    def _follow_session(self, status: SessionStatus) -> None:
        """Called by the session's worker."""
        with self._lock, self.hold_sync():
            self.ready = status.state is SessionState.READY
            self.hint = "" if self.ready else "Load a model to chat."

    def twin(self) -> Twin:
        """The conversation as text, without times."""
        messages = self.conversation
        rows = tuple((_ROLES.get(message.role, message.role), message.text) for message in messages)
        return Twin(f"ChatBox ({len(messages)} messages)", rows)


def _length_in_browser(text: str) -> int:
    """Length in UTF-16 units, which is how JavaScript counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _note(end: ReplyEnd) -> str:
    parts = []
    if end.status is MessageStatus.STOPPED:
        parts.append("Stopped")
    elif end.finish_reason == "length":
        parts.append("Cut at the length limit")
    timings = end.timings
    if timings is not None:
        count = timings.num_generated_tokens
        parts.append("1 token" if count == 1 else f"{count} tokens")
        if timings.decode_tokens_per_s is not None:
            parts.append(f"{timings.decode_tokens_per_s:.1f} tokens/s")
        if timings.ttft_s is not None:
            parts.append(f"first token after {timings.ttft_s:.2f} s")
    return ", ".join(parts)
