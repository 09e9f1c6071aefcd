"""A streaming chat over a session's engine: versions, branches, context. Knows not how text is generated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import traitlets

from widgets.chat_actions import do_chat_action
from widgets.chat_conversations import ChatConversations
from widgets.chat_prompt import ChatPrompt
from widgets.chat_settings import ChatSettings
from widgets.chat_shelf import ChatShelf
from widgets.chat_view import ChatView
from widgets.context_meter import ContextMeter, NextPrompt
from widgets.front_end import module_text, style_text
from widgets.part import Part
from widgets.reply import Reply, ReplyEnd
from widgets.reply_news import tell_of_reply
from widgets.shared_session import as_session
from workbench.conversation import Message, PresetShelf
from workbench.errors import EngineStoppedError, RequestError
from workbench.session import Session, SessionState, SessionStatus
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["ChatBox"]

# Text goes to the browser at most this often.
_TEXT_INTERVAL_S = 1 / 15
_DEFAULT_SAMPLING = {"max_tokens": 512}
_ROLES = {"user": "you", "assistant": "model"}
_NUM_ALTERNATIVES = 6


class ChatBox(Part, ChatConversations):
    """Chat with a loaded engine, or with what a session has loaded; one reply at a time.

    `system` is the system prompt, `sampling` any keywords of `LlamaGPU.submit` (by default greedy, 512 tokens at
    most), `presets` the shelf of saved ones. `on_reply(message)` is called on the reply's thread when one has ended,
    `on_inspect(message)` when the user asks for a reply's tokens. What the model writes never becomes markup.
    """

    _esm = module_text("chat_box")
    _css = style_text()

    # While a reply runs its text goes out in pieces by custom messages; this list follows when it ends.
    messages = traitlets.List().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    ready = traitlets.Bool(False).tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    context = traitlets.Dict().tag(sync=True)
    can_continue = traitlets.Bool(False).tag(sync=True)
    looks_inside = traitlets.Bool(False).tag(sync=True)

    # Until there are a session to leave and a reply to stop.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _reply: Reply | None = None
    _meter: ContextMeter | None = None

    def __init__(
        self,
        source: Session | LlamaGPU | None = None,
        *,
        system: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        presets: PresetShelf | None = None,
        on_reply: Callable[[Message], None] | None = None,
        on_inspect: Callable[[Message], None] | None = None,
    ) -> None:
        self._session = as_session(source)
        self._settings = ChatSettings(_DEFAULT_SAMPLING if sampling is None else sampling, presets)
        self._shelf = ChatShelf(system)
        self._view = ChatView()
        self._on_reply = on_reply or (lambda message: None)
        self._on_inspect = on_inspect or (lambda message: None)
        self._draft = ""
        self._meter = ContextMeter(self._next_prompt, lambda figures: setattr(self, "context", figures))
        # Callbacks come on the kernel's main thread or a subshell's, text on the reply's threads.
        self._lock = threading.RLock()
        super().__init__(system=system or "")
        self.show_settings()
        self._follow_session(self._session.status)
        self._forget = self._session.observe(self._follow_session)
        self.on_msg(self._receive)

    def ask(self, text: str) -> None:
        """Send a message, as a click on Send does; returns at once, the reply streams into the widget.

        Raises RequestError for an empty message or while a reply runs, EngineStoppedError while nothing is loaded.
        """
        with self._lock:
            if not text.strip():
                raise RequestError("the message is empty: write something to send")
            self._require_idle_and_ready()
            self.conversation.add("user", text)
            self._draft = ""
            self._begin(self.conversation.reply())

    def regenerate(self, number: int | None = None) -> None:
        """Another version of a reply (None: of the last). Raises what `ask` does."""
        with self._lock:
            self._require_idle_and_ready()
            self._begin(self.conversation.regenerate(number))

    def continue_reply(self) -> None:
        """Have the model go on with its last reply. Raises what `ask` does."""
        with self._lock:
            self._require_idle_and_ready()
            self._begin(self.conversation.resume())

    def continue_from(self, reply: int | Message, start: str) -> None:
        """Another version of a reply that begins with `start`, which the model goes on from.

        A Message's conversation is opened. Raises what `ask` does, and RequestError for one that is not here any more.
        """
        with self._lock:
            self._require_idle_and_ready()
            if isinstance(reply, Message):
                before = self.conversation
                self._shelf.open_with(reply)
                if self.conversation is not before:
                    self._show_other()
            number = reply.number if isinstance(reply, Message) else reply
            # It may be behind another version of a question.
            self.conversation.show(number)
            message = self.conversation.regenerate(number)
            message.text, message.num_given_chars = start, len(start)
            self._begin(message)

    def edit(self, number: int, text: str) -> None:
        """A new version of a message. After an edited question a new reply runs where a model is loaded."""
        with self._lock:
            message = self.conversation.edit(number, text)
            if message.role == "user" and self.ready:
                self._begin(self.conversation.regenerate(message.number))
            else:
                self._show_messages(busy=False)

    def show_version(self, number: int, step: int) -> None:
        """Show the version of a message `step` places further. Raises RequestError while a reply runs."""
        with self._lock:
            self.conversation.show_next(number, step)
            self._show_messages(busy=False)

    def stop(self) -> None:
        """Stop the reply that runs and keep what has come. Harmless when none runs."""
        reply = self._reply
        if reply is not None:
            reply.stop()

    def inspect(self, number: int) -> None:
        """Hand a message to `on_inspect`. Raises RequestError for no such message."""
        self._on_inspect(self.conversation.message(number))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the reply that runs; True when none runs any more."""
        reply = self._reply
        return reply is None or reply.join(timeout_s)

    def close(self) -> None:
        """Stop a running reply and take the widget away."""
        self._forget()
        self.stop()
        if self._meter is not None:
            self._meter.close()
        super().close()

    def _require_idle(self) -> None:
        if self.busy:
            raise RequestError("a reply is running: stop it or wait for its end")

    def _require_idle_and_ready(self) -> None:
        self._require_idle()
        if self._session.status.state is not SessionState.READY:
            raise EngineStoppedError("no model is loaded")

    def _begin(self, message: Message) -> None:
        """Have the model write a running message."""
        asked = dict(self._settings.sampling)
        sampling = dict(asked)
        if self.looks_inside:
            sampling |= {"logprobs": True, "top_logprobs": _NUM_ALTERNATIVES}
        prompt = ChatPrompt(self.conversation.prompt(), self.conversation.continues_reply, sampling)
        self._reply = Reply(
            lambda: prompt.submit(self._session),
            lambda piece: self._append(message, piece),
            lambda end: self._end(message, end, asked),
            interval_s=_TEXT_INTERVAL_S,
        )
        self._show_messages(busy=True)
        self._reply.start()

    def _append(self, message: Message, piece: str) -> None:
        with self._lock:
            message.text += piece
            change = self._view.change(message)
            reply = self._reply
            self.send({**change, "type": "blocks", "live": reply.figures_so_far() if reply else ""})

    def _end(self, message: Message, end: ReplyEnd, sampling: Mapping[str, Any]) -> None:
        with self._lock:
            before = message.figures if message.num_given_chars else None
            end.write_into(message, self._session)
            told = replace(message)
            if message.figures is not None:
                message.figures = message.figures.going_on_from(before)
            self._show_messages(busy=False)
        # Who counts replies counts the piece that was written now.
        tell_of_reply(self._session, told, sampling)
        self._on_reply(message)

    def _show_messages(self, *, busy: bool) -> None:
        conversation = self.conversation
        shown = conversation.messages
        with self.hold_sync():
            self.messages = [self._view.as_dict(message, conversation.versions(message.number)) for message in shown]
            self._show_names()
            self.busy = busy
            self.can_continue = bool(shown and shown[-1].role == "assistant" and shown[-1].text and not busy)
        if not busy:
            self._measure()

    def _measure(self) -> None:
        """Count the next prompt's tokens in the background."""
        if self.ready and self._meter is not None:
            self._meter.ask()

    def _next_prompt(self) -> NextPrompt:
        with self._lock:
            return self._session.llm, self.conversation.prompt(), self._draft

    def _follow_session(self, status: SessionStatus) -> None:
        """Called by the session's worker."""
        with self._lock, self.hold_sync():
            self.ready = status.state is SessionState.READY
            self.hint = "" if self.ready else "Load a model to chat."
            self.context = {}
        self._measure()

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        """What the browser says."""
        kind = str(content.get("type"))
        if kind == "hello":
            self._repeat_running_text()
        elif kind == "stop":
            self.stop()
        elif kind == "draft":
            self._draft = str(content.get("text", ""))
            self._measure()
        else:
            do_chat_action(self, content)

    def _repeat_running_text(self) -> None:
        with self._lock:
            running = self.conversation.running
            if running is not None:
                self.send({**self._view.whole(running), "type": "blocks", "live": ""})

    def twin(self) -> Twin:
        """The conversation as text, without times."""
        messages = self.conversation.messages
        rows = tuple((_ROLES.get(message.role, message.role), message.text) for message in messages)
        return Twin(f"ChatBox ({len(messages)} messages)", rows)
