"""The line above the tabs: which model answers, how it is doing, and what to do when its engine has died."""

from __future__ import annotations

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from workbench.errors import ConfigError, EngineStoppedError, WorkbenchError
from workbench.session import Session, SessionState

__all__ = ["Header"]

_LOOK_AGAIN_S = 0.4


class Header:
    """Builds the line and keeps it true while the page is open."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        self.line = gr.HTML("", elem_id="wb-header", padding=False)
        with gr.Row(visible=False, elem_id="wb-banner") as self.banner:
            self.banner_text = gr.HTML("", padding=False)
            self.restart = gr.Button("Restart the engine", variant="primary", size="sm", elem_id="wb-restart")
        self.restart.click(
            self._restart, None, None, api_visibility="private", concurrency_limit=1, concurrency_id="model"
        )

    def watch_on(self, demo: gr.Blocks) -> None:
        """Follow the source as long as the page is open."""
        demo.load(
            self._watch,
            None,
            [self.line, self.banner, self.banner_text],
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )

    async def _watch(self) -> AsyncIterator[tuple[Any, Any, Any]]:
        """The line and the banner whenever they change: the server tells, the page need not ask."""
        shown: tuple[str, str] | None = None
        while True:
            now = (self._line(), self._crash())
            if now != shown:
                shown = now
                yield now[0], gr.Row(visible=bool(now[1])), now[1]
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _line(self) -> str:
        state = self._parts.source.state()
        mark = "ready" if state.is_ready else "crashed" if state.has_crashed else "waiting"
        words = self._session_words() or state.words
        if state.is_ready:
            context = f", {state.max_context:,} tokens of context" if state.max_context else ""
            words = f"<b>{html.escape(state.model)}</b> is ready{context}{self._details()}"
        else:
            words = html.escape(words)
        dot = '<span class="wb-dot" aria-hidden="true"></span>'
        return f'<div class="wb-header wb-{mark}" role="status">{dot}<span>{words}</span></div>'

    def _details(self) -> str:
        session = self._parts.session
        facts = session.status.facts if session is not None else None
        if session is None or facts is None:
            return ""
        return f", {html.escape(facts.precision)} on {html.escape(facts.backend)}{_meanwhile(session)}"

    def _session_words(self) -> str:
        session = self._parts.session
        if session is None:
            return ""
        status = session.status
        if status.state is SessionState.LOADING:
            progress = status.progress
            share = f", {progress.fraction:.0%}" if progress and progress.fraction is not None else ""
            stage = f": {progress.stage}" if progress else ""
            return f"Loading {status.choice.model}{stage}{share}"
        if status.state is SessionState.FAILED and status.failure is not None:
            return f"{status.failure.cause} {status.failure.next_step}"
        return ""

    def _crash(self) -> str:
        state = self._parts.source.state()
        if not state.has_crashed:
            return ""
        return (
            '<div role="alert"><b>The engine has stopped.</b> Replies that were running have ended; your conversations '
            "are kept. Restart it to load the same model again.</div>"
        )

    async def _restart(self, request: gr.Request) -> None:
        try:
            self._parts.require_admin(request)
            session = self._parts.require_session()
            choice = session.status.choice
            if choice is None:
                raise ConfigError("nothing was loaded before: choose a model under Models")
            session.load(choice)
        except WorkbenchError as error:
            raise shown_error(error) from None


def _meanwhile(session: Session) -> str:
    """That answers are slow until faster kernels are ready, without how far they are: a line that is read aloud."""
    with contextlib.suppress(EngineStoppedError):
        words, _, _ = session.llm.meanwhile.partition(":")
        return f"; slower at first: {html.escape(words)}" if words else ""
    return ""
