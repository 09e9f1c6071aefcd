"""Load, Cancel and Unload with progress, over a session. Knows the session's states, not how loading works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.part import Part
from widgets.shared_session import require_session
from workbench.byte_size import memory_size
from workbench.errors import WorkbenchError
from workbench.failure import Failure
from workbench.progress import Progress
from workbench.session import LoadChoice, Session, SessionState, SessionStatus
from workbench.twin import Twin

__all__ = ["LoadBar"]

# Progress is shown at most this often; what comes sooner is shown at the end of the interval, as it stands then.
_PROGRESS_INTERVAL_S = 0.2

# Before that a speed says little.
_SURE_AFTER_S = 1.0

_ACTIONS = {
    SessionState.EMPTY: ["load"],
    SessionState.LOADING: ["cancel"],
    SessionState.READY: ["load", "unload"],
    SessionState.UNLOADING: [],
    SessionState.FAILED: ["load"],
}


class LoadBar(Part, anywidget.AnyWidget):
    """Buttons and progress for `session`; `choose` says what Load loads."""

    _esm = module_text("load_bar")
    _css = style_text()

    state = traitlets.Unicode(SessionState.EMPTY.value).tag(sync=True)
    headline = traitlets.Unicode().tag(sync=True)
    detail = traitlets.Unicode().tag(sync=True)
    fraction = traitlets.Float(None, allow_none=True).tag(sync=True)
    actions = traitlets.List(["load"]).tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)
    # What the last unload gave back, and what still holds the rest.
    receipt = traitlets.List(traitlets.Unicode()).tag(sync=True)

    # Until there is a session to leave.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _late: threading.Timer | None = None

    def __init__(
        self,
        session: Session,
        choose: Callable[[], LoadChoice] = LoadChoice,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = require_session(session)
        self._choose = choose
        self._clock = clock
        self._shown_at_s = float("-inf")
        self._shown_stage: tuple[SessionState, str | None, bool] | None = None
        self._stage_began: tuple[str, float, int] | None = None
        self._lock = threading.RLock()
        super().__init__()
        self._show(session.status)
        self._forget = session.observe(self._show)
        self.on_msg(self._receive)

    def load(self) -> None:
        """Load what `choose` says, as a click on Load does. Returns at once."""
        try:
            self._session.load(self._choose())
        except WorkbenchError as error:
            self.failure = Failure.of(error).as_dict()

    def cancel(self) -> None:
        """Stop the load that runs."""
        self._session.cancel()

    def unload(self) -> None:
        """Unload what is loaded."""
        self._session.unload()

    def close(self) -> None:
        """Take the widget away. The session goes on."""
        self._forget()
        if self._late is not None:
            self._late.cancel()
        super().close()

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        action = content.get("type")
        if action in self.actions:
            {"load": self.load, "cancel": self.cancel, "unload": self.unload}[action]()

    def _show(self, status: SessionStatus) -> None:
        """Put a status on the screen. Called by the session's worker."""
        with self._lock:
            stage = status.progress.stage if status.progress else None
            step = (status.state, stage, status.is_cancelling)
            is_same = stage is not None and step == self._shown_stage
            early_s = self._shown_at_s + _PROGRESS_INTERVAL_S - self._clock()
            if is_same and early_s > 0:
                self._show_later(early_s)
                return
            self._shown_stage, self._shown_at_s = step, self._clock()
            with self.hold_sync():
                self.state = status.state.value
                self.headline = _headline(status)
                self.detail = _detail(status) + self._time_left(status)
                self.fraction = status.progress.fraction if status.progress else None
                self.actions = ["load"] if status.is_cancelling else _ACTIONS[status.state]
                self.failure = status.failure.as_dict() if status.failure else None
                is_worth_a_word = status.receipt is not None and not status.receipt.is_complete
                self.receipt = status.receipt.lines() if is_worth_a_word else []

    def _time_left(self, status: SessionStatus) -> str:
        """How long the stage goes on at the speed it has had so far, in words; empty where that can't be said."""
        progress = status.progress
        if progress is None or status.is_cancelling:
            self._stage_began = None
            return ""
        if self._stage_began is None or self._stage_began[0] != progress.stage:
            self._stage_began = (progress.stage, self._clock(), progress.completed)
        _, began_s, first = self._stage_began
        seconds, done = self._clock() - began_s, progress.completed - first
        if not progress.total or seconds < _SURE_AFTER_S or done <= 0:
            return ""
        return f", {_duration((progress.total - progress.completed) * seconds / done)} left"

    def _show_later(self, delay_s: float) -> None:
        """See that the last step before a pause is shown too."""
        if self._late is None:
            self._late = threading.Timer(delay_s, self._show_now)
            self._late.daemon = True
            self._late.start()

    def _show_now(self) -> None:
        with self._lock:
            self._late = None
            self._show(self._session.status)

    def twin(self) -> Twin:
        """The state in words, without sizes."""
        status = self._session.status
        words = {SessionState.EMPTY: "no model loaded"}.get(status.state, status.state.value)
        if status.facts:
            words += f": {status.facts.model}, {status.facts.backend}, {status.facts.precision}"
        return Twin("LoadBar", (("state", words),))


def _headline(status: SessionStatus) -> str:
    match status.state:
        case SessionState.LOADING:
            return f"{'Cancelling the load of' if status.is_cancelling else 'Loading'} {status.choice.model}"
        case SessionState.READY:
            return f"{status.facts.model} is ready: {status.facts.backend}, {status.facts.precision}"
        case SessionState.UNLOADING:
            return "Unloading"
        case SessionState.FAILED:
            return f"{status.choice.model} could not be loaded"
    if status.freed_bytes:
        freed = ", ".join(f"{memory_size(count)} on {device}" for device, count in status.freed_bytes.items())
        return f"No model loaded; unloading freed {freed}"
    return "No model loaded"


def _detail(status: SessionStatus) -> str:
    if status.state is SessionState.READY:
        return f"context {status.facts.max_context} tokens"
    if status.is_cancelling:
        return f"as soon as this step ends: {status.progress.stage if status.progress else 'getting ready'}"
    return _progress_text(status.progress) if status.progress else ""


def _progress_text(progress: Progress) -> str:
    if progress.total is None and not progress.completed:
        # Nothing is counted there.
        return progress.stage
    if progress.unit != "B":
        total = "" if progress.total is None else f" of {progress.total}"
        return f"{progress.stage}: {progress.completed}{total} {progress.unit}"
    total = "" if progress.total is None else f" of {memory_size(progress.total)}"
    return f"{progress.stage}: {memory_size(progress.completed)}{total}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
