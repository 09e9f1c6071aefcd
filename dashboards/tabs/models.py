"""The Models tab: what loading would take, then load and unload with progress."""

from __future__ import annotations

import asyncio
import html
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from dashboards.tabs.progress_bar import progress_bar
from dashboards.tabs.quantize import QuantizePart
from dashboards.tabs.tradeoff import TradeoffPart
from widgets.menu import AUTO, Menu, Option
from workbench.errors import WorkbenchError
from workbench.failure import Failure
from workbench.session import LoadChoice, SessionState

__all__ = ["ModelsTab"]

_OPTIONS = {"show_progress": "hidden", "api_visibility": "private"}
_ONE_AT_A_TIME = {**_OPTIONS, "concurrency_limit": 1, "concurrency_id": "model"}
_DRAFT_WORDS = "a smaller model with the same vocabulary that guesses ahead: the same text in fewer passes; empty: none"
# Arguments of a plan that have a control here.
_SETTABLE = {"model", "backend", "quant", "context"}


class ModelsTab:
    """Builds the tab into the Blocks that is open. `menu` is what this machine offers."""

    def __init__(self, parts: AppParts, menu: Menu) -> None:
        self._parts = parts
        self._menu = menu
        with gr.Row():
            with gr.Column(min_width=300):
                self.model = gr.Dropdown(
                    _choices(menu.models),
                    value=menu.models[0].value if menu.models else "default",
                    label="Model",
                    info="or a folder, a .gguf file, a hub id org/name, random:llama-3.1-8b",
                    allow_custom_value=True,
                    elem_id="wb-model",
                )
                self.backend = gr.Dropdown(_choices(menu.backends), value=AUTO, label="Backend", elem_id="wb-backend")
                self.precision = gr.Dropdown(
                    self._precisions(AUTO), value=AUTO, label="Precision or quantisation", elem_id="wb-precision"
                )
                self.context = gr.Number(
                    0,
                    label="Context length, tokens",
                    precision=0,
                    minimum=0,
                    info="0: as long as fits",
                    elem_id="wb-context",
                )
                with gr.Accordion("More: draft model", open=False, elem_id="wb-load-more"):
                    self.draft = gr.Textbox(info=_DRAFT_WORDS, label="Draft model", max_lines=1, elem_id="wb-draft")
                self.reasons = gr.Markdown(_reasons(menu, AUTO), elem_classes="wb-figures", elem_id="wb-reasons")
                with gr.Row(elem_classes="wb-bar-of-buttons"):
                    self.load = gr.Button("Load", variant="primary", size="sm", elem_id="wb-load")
                    self.unload = gr.Button("Unload", size="sm", elem_id="wb-unload")
                    self.cancel = gr.Button("Cancel loading", size="sm", elem_id="wb-cancel-load")
                self.progress = gr.HTML("", elem_id="wb-progress", padding=False)
            with gr.Column(min_width=320):
                gr.Markdown("#### Before you load")
                self.plan = gr.HTML("", elem_id="wb-plan", padding=False)
                self.advice = gr.Radio([], label="What would help", visible=False, elem_id="wb-advice")
        QuantizePart(parts, self.model)
        TradeoffPart(parts, self.model)
        self.timer = gr.Timer(0.5, active=False)
        self._wire()

    @property
    def _asked(self) -> list[Any]:
        return [self.model, self.backend, self.precision, self.context, self.draft]

    def _wire(self) -> None:
        shown = [self.precision, self.reasons]
        self.backend.input(self._follow_backend, [self.backend], shown, trigger_mode="always_last", **_OPTIONS)
        # Typed letter by letter, it is looked for once it is whole.
        self.model.input(self._drop_draft, [self.model], [self.draft], **_OPTIONS)
        for change in (*(control.change for control in self._asked[:-1]), self.draft.submit, self.draft.blur):
            change(
                self._plan,
                self._asked,
                [self.plan, self.advice],
                trigger_mode="always_last",
                concurrency_limit=2,
                concurrency_id="plan",
                **_OPTIONS,
            )
        self.load.click(self._load, self._asked, [self.progress], **_ONE_AT_A_TIME)
        self.unload.click(self._unload, None, [self.progress], **_ONE_AT_A_TIME)
        self.cancel.click(self._cancel, None, [self.progress], concurrency_limit=None, **_OPTIONS)
        self.timer.tick(self._show_progress, None, [self.progress], concurrency_limit=None, **_OPTIONS)
        self.advice.input(self._take_advice, [self.advice, *self._asked], self._asked, **_OPTIONS)

    def plan_on(self, tab: gr.Tab) -> None:
        """Plan what is chosen when the tab is shown."""
        tab.select(
            self._plan, self._asked, [self.plan, self.advice], concurrency_limit=2, concurrency_id="plan", **_OPTIONS
        )

    def _precisions(self, backend: str) -> list[tuple[str, str]]:
        return _choices(self._menu.precisions(backend))

    async def _follow_backend(self, backend: str) -> tuple[Any, str]:
        precisions = gr.Dropdown(choices=self._precisions(backend), value=AUTO)
        return precisions, _reasons(self._menu, backend)

    async def _drop_draft(self, model: str) -> str:
        """It would have to share the vocabulary of another model too."""
        return ""

    async def _plan(
        self, request: gr.Request, model: str, backend: str, precision: str, context: float | None, draft: str
    ) -> tuple[str, Any]:
        from workbench.planner import plan

        hidden = gr.Radio(choices=[], visible=False)
        try:
            choice = _load_choice(model, backend, precision, context, draft)
            made = await asyncio.to_thread(
                plan,
                choice.model,
                backend=choice.backend,
                quant=choice.precision,
                context=choice.context_length,
                draft_model=choice.draft_model,
                reclaim_bytes=self._reclaimable_bytes(),
            )
        except WorkbenchError as error:
            failure = Failure.of(error)
            return f"<p>{html.escape(failure.cause)} {html.escape(failure.next_step)}</p>", hidden
        # What there is no control for stands among the plan's own words only.
        settable = [a for a in made.advice if {name for name, value in a.change.items() if value} <= _SETTABLE]
        advice = [(f"{a.text}: {a.cost}", index) for index, a in enumerate(settable)]
        self._parts.desk(request).advice = [dict(a.change) for a in settable]
        return made._repr_html_(), gr.Radio(choices=advice, value=None, visible=bool(advice))

    def _reclaimable_bytes(self) -> int:
        """What the loaded model gives back before the next one is loaded."""
        try:
            llm = self._parts.require_session().llm
        except WorkbenchError:
            return 0
        return llm.weight_bytes + llm.limits.kv_bytes if llm.is_loaded else 0

    async def _take_advice(
        self, request: gr.Request, index: int, model: str, backend: str, precision: str, context: float, draft: str
    ) -> list[Any]:
        change = self._parts.desk(request).advice[index]
        return [
            change.get("model", model),
            change.get("backend", backend),
            change.get("quant", precision),
            change.get("context", context),
            draft,
        ]

    async def _load(self, request: gr.Request, *asked: Any) -> str:
        try:
            self._parts.require_admin(request)
            self._parts.require_session().load(_load_choice(*asked))
        except WorkbenchError as error:
            raise shown_error(error) from None
        return self._progress_html()

    async def _unload(self, request: gr.Request) -> str:
        try:
            self._parts.require_admin(request)
            session = self._parts.require_session()
            session.unload()
            await asyncio.to_thread(session.wait)
        except WorkbenchError as error:
            raise shown_error(error) from None
        return self._progress_html()

    async def _cancel(self, request: gr.Request) -> str:
        try:
            self._parts.require_admin(request)
            session = self._parts.require_session()
            if session.status.state is SessionState.LOADING:
                session.cancel()
        except WorkbenchError as error:
            raise shown_error(error) from None
        return self._progress_html()

    async def _show_progress(self) -> str:
        return self._progress_html()

    def _progress_html(self) -> str:
        status = self._parts.require_session().status
        if status.state is SessionState.LOADING:
            return progress_bar("Cancelling" if status.is_cancelling else "Loading", status.progress)
        if status.state is SessionState.FAILED and status.failure is not None:
            return f"<p><b>{html.escape(status.failure.cause)}</b> {html.escape(status.failure.next_step)}</p>"
        if status.state is SessionState.READY and status.facts is not None:
            facts = status.facts
            return (
                f"<p>{html.escape(facts.model)} is ready: {html.escape(facts.precision)} on "
                f"{html.escape(facts.backend)}, {facts.max_context:,} tokens of context.</p>"
            )
        freed = ", ".join(
            f"{size / 1e6:,.0f} MB on {html.escape(device)}" for device, size in status.freed_bytes.items()
        )
        return f"<p>No model is loaded{'; unloading freed ' + freed if freed else ''}.</p>"


def _load_choice(model: str, backend: str, precision: str, context: float | None, draft: str) -> LoadChoice:
    return LoadChoice(
        (model or "").strip(),
        None if backend == AUTO else backend,
        None if precision == AUTO else precision,
        int(context) if context else None,
        draft_model=(draft or "").strip() or None,
    )


def _choices(options: tuple[Option, ...]) -> list[tuple[str, str]]:
    """What can be chosen; the rest is explained by `_reasons`."""
    return [(option.label, option.value) for option in options if option.reason is None]


def _reasons(menu: Menu, backend: str) -> str:
    """Why the rest can't be chosen here."""
    options = [*menu.backends, *menu.precisions(backend)]
    lines = [f"- **{option.label}** is not available: {option.reason}" for option in options if option.reason]
    notes = [f"- {option.label}: {option.note}" for option in options if option.note and not option.reason]
    return "\n".join([*notes, *lines])
