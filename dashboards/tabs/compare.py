"""The Compare tab: one prompt to several models, precisions or samplings side by side, written at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from dashboards.running_reply import RunningReply
from dashboards.shown_text import reply_text, shown_text
from dashboards.sources import ChatAsk, ChatSource, SessionSource
from workbench.conversation import Conversation, agreement
from workbench.errors import ConfigError, WorkbenchError
from workbench.failure import Failure

__all__ = ["CompareTab"]

_MAX_COLUMNS = 4
_LOADED = "the loaded model"
_PRECISIONS = ("automatic", "fp32", "bf16", "fp16", "int8", "int4", "dynamic")
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


@dataclass(frozen=True)
class _Column:
    """The components of one answer."""

    box: gr.Column
    model: gr.Dropdown
    precision: gr.Dropdown
    preset: gr.Dropdown
    answer: gr.Markdown
    figures: gr.Markdown

    @property
    def inputs(self) -> list[Any]:
        return [self.model, self.precision, self.preset]


class CompareTab:
    """Builds the tab into the Blocks that is open."""

    def __init__(self, parts: AppParts, models: list[str]) -> None:
        self._parts = parts
        self._is_remote = parts.source.is_remote
        self.prompt = gr.Textbox(
            label="One message to all",
            placeholder="Message",
            lines=1,
            max_lines=10,
            submit_btn="Send to all",
            elem_id="wb-compare-prompt",
        )
        self.count = gr.Radio([2, 3, 4], value=2, label="Answers", elem_id="wb-compare-count")
        with gr.Row(elem_classes="wb-bar-of-buttons"):
            self.stop = gr.Button("Stop all", size="sm", variant="stop", interactive=False, elem_id="wb-compare-stop")
            if parts.bench is not None:
                self.unload = gr.Button("Unload models of comparisons", size="sm", elem_id="wb-compare-unload")
        self.state = gr.Markdown("", elem_id="wb-compare-state")
        with gr.Row():
            self._columns = [self._build_column(index, models) for index in range(_MAX_COLUMNS)]
        self._wire()

    def show_on(self, tab: gr.Tab) -> None:
        """Offer the presets that are saved by now when the tab is opened."""
        tab.select(self._offer_presets, None, [column.preset for column in self._columns], **_OPTIONS)

    def _offer_presets(self) -> list[Any]:
        try:
            names = [preset.name for preset in self._parts.shelf.list()]
        except WorkbenchError as error:
            raise shown_error(error) from None
        return [gr.Dropdown(choices=names) for _ in self._columns]

    def _build_column(self, index: int, models: list[str]) -> _Column:
        presets = [preset.name for preset in self._parts.shelf.list()]
        with gr.Column(min_width=260, visible=index < 2, elem_classes="wb-compare-column") as box:
            gr.Markdown(f"#### Answer {index + 1}")
            model = gr.Dropdown(
                models if self._is_remote else [_LOADED, *models],
                value=(models[0] if models else None) if self._is_remote else _LOADED,
                label="Model",
                allow_custom_value=True,
                elem_id=f"wb-compare-model-{index + 1}",
            )
            precision = gr.Dropdown(
                list(_PRECISIONS),
                value="automatic",
                label="Precision",
                visible=not self._is_remote,
                info="another one than the loaded model's is loaded for this",
                elem_id=f"wb-compare-precision-{index + 1}",
            )
            preset = gr.Dropdown(
                presets,
                value=presets[min(index, len(presets) - 1)],
                label="Preset",
                elem_id=f"wb-compare-preset-{index + 1}",
            )
            answer = gr.Markdown(
                "", container=True, buttons=["copy"], elem_classes="wb-answer", elem_id=f"wb-answer-{index + 1}"
            )
            figures = gr.Markdown("", elem_classes="wb-figures", elem_id=f"wb-answer-figures-{index + 1}")
        return _Column(box, model, precision, preset, answer, figures)

    def _wire(self) -> None:
        boxes = [column.box for column in self._columns]
        self.count.input(
            lambda count: [gr.Column(visible=index < count) for index in range(_MAX_COLUMNS)],
            self.count,
            boxes,
            trigger_mode="always_last",
            **_OPTIONS,
        )
        inputs = [self.prompt, self.count, *(value for column in self._columns for value in column.inputs)]
        outputs = [
            self.state,
            self.stop,
            *(part for column in self._columns for part in (column.answer, column.figures)),
        ]
        asked = self.prompt.submit(self._compare, inputs, outputs, **_OPTIONS)
        # However it ended.
        asked.then(lambda: gr.Button(interactive=False), None, self.stop, **_OPTIONS)
        self.stop.click(self._stop_all, None, None, **_OPTIONS)
        if self._parts.bench is not None:
            options = {**_OPTIONS, "concurrency_limit": 1, "concurrency_id": "model"}
            self.unload.click(self._unload, None, [self.state], **options)

    async def _compare(
        self, request: gr.Request, prompt: str, count: int, *choices: Any
    ) -> AsyncIterator[dict[Any, Any]]:
        desk = self._parts.desk(request)
        if not prompt.strip():
            raise shown_error(ConfigError("the message is empty: write something to send"))
        if any(reply.is_running for reply in desk.others.values()):
            raise shown_error(ConfigError("a comparison is running: stop it, or wait for its end"))
        columns = self._columns[: int(count)]
        cleared = {part: "" for column in columns for part in (column.answer, column.figures)}
        yield {**cleared, self.state: "Getting the models ready…"}
        asked: list[tuple[ChatSource, ChatAsk, str | None]] = []
        answering, failed = [], {self.state: ""}
        for index, column in enumerate(columns):
            try:
                asked.append(await self._asked(request, *choices[3 * index : 3 * index + 3]))
            except WorkbenchError as error:
                # The others are compared all the same.
                failed[column.answer] = shown_text(f"**No answer:** {Failure.of(error).cause}")
            else:
                answering.append(column)
        yield failed
        columns = answering
        replies = [_begin(source, ask, system, prompt) for source, ask, system in asked]
        desk.others = {str(index): reply for index, reply in enumerate(replies)}
        yield {self.stop: gr.Button(interactive=True)}
        try:
            while any(reply.is_running for reply in replies):
                await asyncio.sleep(self._parts.update_interval_s)
                yield {self.state: "", **self._shown(columns, replies)}
        finally:
            # The page is gone, or all have ended.
            for reply in replies:
                reply.stop()
        yield {**self._shown(columns, replies), **self._judged(columns, replies, [source for source, _, _ in asked])}

    async def _asked(
        self, request: gr.Request, model: str, precision: str, preset_name: str
    ) -> tuple[ChatSource, ChatAsk, str | None]:
        """Who is asked, and how."""
        preset = self._parts.shelf.get(preset_name)
        # Token texts come with the likelihoods, and are what answers are compared by.
        params = replace(preset.params, logprobs=True)
        if self._is_remote:
            return self._parts.source, ChatAsk(params=params, model=model or None), preset.system
        if model == _LOADED and precision == "automatic":
            return self._parts.source, ChatAsk(params=params), preset.system
        self._parts.require_admin(request)
        state = self._parts.source.state()
        wanted = None if precision == "automatic" else precision
        model = self._loaded_name() if model == _LOADED else model
        source = await self._parts.bench.source(model, wanted, min(state.max_context or 2048, 4096))
        return source, ChatAsk(params=params), preset.system

    def _loaded_name(self) -> str:
        choice = self._parts.require_session().status.choice
        if choice is None:
            raise ConfigError("no model is loaded: load one under Models, or name one here")
        return choice.model

    def _shown(self, columns: list[_Column], replies: list[RunningReply]) -> dict[Any, Any]:
        shown: dict[Any, Any] = {}
        for column, reply in zip(columns, replies, strict=True):
            message = reply.message
            failure = f"**{message.failure.cause}** {message.failure.next_step}" if message.failure else ""
            shown[column.answer] = (reply_text(message.text) if message.text else shown_text(failure)) or "…"
            now_s = asyncio.get_running_loop().time()
            shown[column.figures] = reply.live.line(now_s) if reply.is_running else message.note
        return shown

    def _judged(self, columns: list[_Column], replies: list[RunningReply], sources: list[ChatSource]) -> dict[Any, Any]:
        """Figures under the finished answers: speed, memory, and agreement with the first one."""
        first = [token.text for token in replies[0].tokens] if replies else []
        number = 1 + self._columns.index(columns[0]) if columns else 0
        judged: dict[Any, Any] = {}
        for index, (column, reply, source) in enumerate(zip(columns, replies, sources, strict=True)):
            lines = [reply.message.note, _memory_words(source)]
            if index and reply.tokens:
                same = agreement(first, [token.text for token in reply.tokens])
                lines.append(f"Against answer {number}: {same.line()}")
            judged[column.figures] = "\n\n".join(line for line in lines if line)
        return judged

    async def _stop_all(self, request: gr.Request) -> None:
        for reply in self._parts.desk(request).others.values():
            reply.stop()

    async def _unload(self, request: gr.Request) -> str:
        try:
            self._parts.require_admin(request)
            names = self._parts.bench.names
            await self._parts.bench.unload()
        except WorkbenchError as error:
            raise shown_error(error) from None
        return f"Unloaded {', '.join(names)}." if names else "Nothing was loaded for comparisons."


def _begin(source: ChatSource, ask: ChatAsk, system: str | None, prompt: str) -> RunningReply:
    conversation = Conversation(system)
    conversation.add("user", prompt)
    conversation.reply()
    return RunningReply.of(source, conversation, ask)


def _memory_words(source: ChatSource) -> str:
    """What the answering model takes, where it is in this process."""
    if not isinstance(source, SessionSource) or not source.state().is_ready:
        return ""
    llm = source.session.llm
    weights_mb, kv_mb = llm.weight_bytes / 1e6, llm.limits.kv_bytes / 1e6
    return f"{llm.precision} on {llm.backend.name}: weights {weights_mb:,.0f} MB, KV pool up to {kv_mb:,.0f} MB"
