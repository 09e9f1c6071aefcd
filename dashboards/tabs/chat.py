"""The chat tab: a conversation with versions and branches, its settings, and the other conversations."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr

from dashboards.chat_entries import chat_entries
from dashboards.chat_settings import FORMATS, THINKING, ChatSettings
from dashboards.desk import Desk
from dashboards.meter import meter_html
from dashboards.parts import AppParts, shown_error
from dashboards.sources import ChatAsk
from dashboards.tabs.presets import PresetBar
from workbench.conversation import Conversation, Message, export_conversations, import_conversations
from workbench.errors import RequestError, WorkbenchError

__all__ = ["ChatTab"]

_STORAGE_KEY = "workbench-conversations"
_MAX_IMPORT_BYTES = 20_000_000
_WELCOME = """### Ask something
Enter sends, Shift+Enter makes a new line, Esc stops, Ctrl+Enter regenerates."""
# Hands text to the browser as a file, without one on the server.
DOWNLOAD_JS = """(text, name) => {
    if (!text) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


class ChatTab:
    """Builds the tab into the Blocks that is open, and wires it up. `show_inside` selects the Inside tab."""

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        self._store = gr.BrowserState("", storage_key=_STORAGE_KEY, secret="kept in this browser only")
        with gr.Row(elem_classes="wb-chat"):
            with gr.Column(scale=3, min_width=320):
                self._build_chat()
            with gr.Column(scale=1, min_width=300, elem_classes="wb-side"):
                self._build_conversations()
                self._build_settings()
        self.outputs = [self.chatbot, self.box, self.list, self.name, self.status, self.controls["system"]]
        self.outputs += [self.stop_button, self.older, self.newer, self._store]
        self._wire()

    def _build_chat(self) -> None:
        self.chatbot = gr.Chatbot(
            label="Conversation",
            show_label=False,
            height="58vh",
            min_height=260,
            editable="user",
            buttons=["copy", "copy_all"],
            feedback_options=None,
            latex_delimiters=[
                {"left": "$$", "right": "$$", "display": True},
                {"left": "\\(", "right": "\\)", "display": False},
                {"left": "\\[", "right": "\\]", "display": True},
            ],
            placeholder=_WELCOME,
            elem_id="wb-chatbot",
            # Tags of a model are text, not markup.
            allow_tags=False,
        )
        self.box = gr.Textbox(
            label="Message",
            placeholder="Message",
            show_label=False,
            lines=1,
            max_lines=10,
            submit_btn="Send",
            elem_id="wb-message",
            autofocus=True,
        )
        self.meter = gr.HTML(meter_html(None), elem_id="wb-meter", padding=False)
        with gr.Row(elem_classes="wb-bar-of-buttons"):
            self.stop_button = _button("Stop", "wb-stop", variant="stop", interactive=False)
            self.regenerate = _button("Regenerate", "wb-regenerate")
            self.resume = _button("Continue", "wb-continue")
            self.undo = _button("Undo", "wb-undo")
            self.older = _button("‹ Older version", "wb-older", interactive=False)
            self.newer = _button("Newer version ›", "wb-newer", interactive=False)
            self.edit = _button("Edit reply", "wb-edit")
            self.branch = _button("Branch here", "wb-branch")
            self.look_inside = _button("Look inside", "wb-look-inside")
        self.status = gr.Markdown("", elem_id="wb-selected")
        with gr.Group(visible=False, elem_id="wb-editor") as self.editor:
            self.editor_text = gr.Textbox(label="Text of the reply", lines=6, max_lines=20)
            with gr.Row():
                self.editor_save = gr.Button("Save as a new version", variant="primary", size="sm")
                self.editor_cancel = gr.Button("Cancel", size="sm")

    def _build_conversations(self) -> None:
        with gr.Accordion("Conversations", open=True, elem_id="wb-conversations"):
            self.new = gr.Button("New conversation", size="sm", elem_id="wb-new")
            self.list = gr.Radio(label="Open", show_label=False, choices=[], elem_classes="wb-list", container=False)
            self.name = gr.Textbox(label="Name", max_length=80, elem_id="wb-name")
            with gr.Row():
                self.export = gr.Button("Export", size="sm", min_width=80)
                self.export_all = gr.Button("Export all", size="sm", min_width=80)
                self.imported = gr.UploadButton(
                    "Import", size="sm", type="binary", file_types=[".json"], min_width=80, elem_id="wb-import"
                )
                self.delete = gr.Button("Delete", size="sm", min_width=80, elem_id="wb-delete")

    def _build_settings(self) -> None:
        controls: dict[str, Any] = {}
        with gr.Accordion("Sampling", open=True, elem_id="wb-sampling"):
            self.presets = PresetBar(self._parts.shelf)
            controls["system"] = gr.Textbox(label="System prompt", lines=2, max_lines=8, elem_id="wb-system")
            controls["max_tokens"] = gr.Number(
                512, label="Most tokens of a reply", precision=0, minimum=0, info="0: no limit"
            )
            controls["temperature"] = gr.Slider(0, 2, 0.0, step=0.05, label="Temperature", info="0 takes the likeliest")
            with gr.Accordion("More", open=False):
                controls["top_p"] = gr.Slider(0.01, 1, 1.0, step=0.01, label="Top-p")
                controls["top_k"] = gr.Number(0, label="Top-k", precision=0, minimum=0, info="0: all")
                controls["min_p"] = gr.Slider(0, 1, 0.0, step=0.01, label="Min-p")
                controls["repetition_penalty"] = gr.Slider(0.5, 2, 1.0, step=0.01, label="Repetition penalty")
                controls["seed"] = gr.Textbox("", label="Seed", info="empty: a new one each time")
                controls["stop"] = gr.Textbox("", label="Stop strings", lines=2, info=r"one a line; \n is a line break")
                controls["more"] = gr.Textbox(
                    "", label="Further settings (JSON)", info='such as {"frequency_penalty": 0.5}', lines=2
                )
        with gr.Accordion("Answer format and tools", open=False, elem_id="wb-format"):
            controls["format"] = gr.Dropdown(
                list(FORMATS), value="Text", label="The answer is", elem_id="wb-answer-format"
            )
            controls["format_text"] = gr.Code(
                "", label="Schema, expression or grammar", language="json", lines=6, elem_id="wb-schema"
            )
            controls["tools"] = gr.CheckboxGroup(list(self._parts.toolbox.names), label="Tools the model may call")
            controls["must_call"] = gr.Checkbox(False, label="It must call one")
            controls["thinking"] = gr.Dropdown(list(THINKING), value=next(iter(THINKING)), label="Reasoning")
            controls["start"] = gr.Textbox("", label="Begin the reply with", lines=1, max_lines=4)
        self.controls = controls

    @property
    def settings(self) -> list[Any]:
        """The controls whose values make up `ChatSettings`."""
        return list(self.controls.values())

    def _wire(self) -> None:
        settings = self.settings
        begin = functools.partial(self._begin_with, outputs=self.outputs)
        begin(self.box.submit, self._send, [self.box, *settings])
        begin(self.chatbot.retry, self._retry, settings)
        begin(self.chatbot.edit, self._edit_question, settings)
        begin(self.regenerate.click, self._regenerate, settings)
        begin(self.resume.click, self._resume, settings)
        self._quick(self.chatbot.undo, self._undo, [])
        self._quick(self.undo.click, self._undo, [])
        self._quick(self.chatbot.clear, self._clear, [])
        self._quick(self.chatbot.select, self._select, [], trigger_mode="always_last")
        self._quick(self.older.click, self._show_older, [])
        self._quick(self.newer.click, self._show_newer, [])
        self._quick(self.branch.click, self._branch, [])
        self._quick(self.new.click, self._new, [])
        self._quick(self.delete.click, self._delete, [])
        self._quick(self.name.submit, self._rename, [self.name])
        self._quick(self.name.blur, self._rename, [self.name])
        self._quick(self.imported.upload, self._import, [self.imported])
        begin(self.list.input, self._open, [self.list], trigger_mode="always_last")
        self._event(self.stop_button.click, self._stop, [], [])
        self._event(self.edit.click, self._open_editor, [], [self.editor, self.editor_text])
        self._event(self.editor_cancel.click, lambda: gr.Group(visible=False), [], [self.editor])
        self._quick(self.editor_save.click, self._save_edit, [self.editor_text]).then(
            lambda: gr.Group(visible=False), None, self.editor, api_visibility="private"
        )
        self._wire_meter()
        self._wire_exports()
        self.presets.wire(self.controls)

    def _wire_meter(self) -> None:
        inputs = [self.box, self.controls["system"]]
        for event in (self.box.change, self.controls["system"].change, self.chatbot.change):
            self._event(event, self._measure, inputs, [self.meter], trigger_mode="always_last")
        system = self.controls["system"]
        self._event(system.change, self._note_system, [system], [], trigger_mode="always_last")

    def _wire_exports(self) -> None:
        # Hidden, not absent: what is absent has no value in the browser.
        text, name = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
        for button, which in ((self.export, self._export_one), (self.export_all, self._export_all)):
            self._event(button.click, which, [], [text, name]).then(
                None, [text, name], None, js=DOWNLOAD_JS, api_visibility="private"
            )

    def restore_on(self, demo: gr.Blocks) -> None:
        """When the page opens, bring back what the browser has kept."""
        self._event(demo.load, self._restore, [self._store], self.outputs)

    def _event(
        self, event: Callable[..., Any], fn: Callable[..., Any], inputs: list, outputs: list, **options: Any
    ) -> Any:
        return event(
            fn,
            inputs or None,
            outputs or None,
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
            **options,
        )

    def _quick(self, event: Callable[..., Any], fn: Callable[..., Any], inputs: list, **options: Any) -> Any:
        """An event that changes the conversation and shows it."""

        async def change(request: gr.Request, event: gr.EventData, *values: Any) -> dict[Any, Any]:
            desk = self._parts.desk(request)
            before = desk.current
            try:
                box = await fn(desk, event, *values)
            except WorkbenchError as error:
                raise shown_error(error) from None
            return self.view(desk, box, is_other=desk.current is not before)

        return self._event(event, change, inputs, self.outputs, **options)

    def _begin_with(
        self, event: Callable[..., Any], fn: Callable[..., Any], inputs: list, outputs: list, **options: Any
    ) -> None:
        """An event after which a reply may run: the change is shown at once, then the reply as it grows."""
        self._quick(event, fn, inputs, **options).then(
            self.follow,
            None,
            outputs,
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )

    # What is shown.

    def view(self, desk: Desk, box: str | None = None, *, is_other: bool = False) -> dict[Any, Any]:
        """The outputs for the desk as it is; `box` replaces what is being typed. `is_other`: another conversation has
        become the current one. Without it the system prompt is left alone: somebody may be writing it.
        """
        current, is_running = desk.current, desk.reply is not None
        selected = desk.selected_message()
        versions = current.versions(selected.number) if selected else None
        place = versions.numbers.index(selected.number) if versions else 0
        view: dict[Any, Any] = {
            self.chatbot: self._entries(desk),
            self.list: gr.Radio(choices=_choices(desk), value=current.conversation_id),
            self.name: current.title,
            self.status: _selected_words(desk, selected),
            self.stop_button: gr.Button(interactive=is_running),
            self.older: gr.Button(interactive=bool(versions) and place > 0 and not is_running),
            self.newer: gr.Button(interactive=bool(versions) and place < versions.count - 1 and not is_running),
        }
        if is_other:
            view[self.controls["system"]] = current.system or ""
        if box is not None:
            view[self.box] = box
        if not is_running:
            view[self._store] = desk.stored()
        return view

    def _entries(self, desk: Desk) -> list[dict[str, Any]]:
        reply = desk.reply
        live = "" if reply is None else reply.live.line(asyncio.get_running_loop().time())
        return chat_entries(desk.current, live).entries

    async def follow(self, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        """The running reply of the current conversation, as long as it is the current one."""
        desk = self._parts.desk(request)
        reply = desk.reply
        if reply is None:
            return
        try:
            async for _ in reply.updates(self._parts.update_interval_s):
                if desk.reply is not reply:
                    return
                yield {self.chatbot: self._entries(desk)}
        except (asyncio.CancelledError, GeneratorExit):
            # The page is gone.
            reply.stop()
            raise
        if desk.current.conversation_id and any(m is reply.message for m in desk.current.messages):
            yield self.view(desk)

    async def _restore(self, stored: str, request: gr.Request) -> dict[Any, Any]:
        desk = self._parts.desk(request)
        desk.restore(stored)
        return self.view(desk, is_other=bool(desk.current.all_messages))

    async def _note_system(self, system: str, request: gr.Request) -> None:
        self._parts.desk(request).current.system = system.strip() or None

    async def _measure(self, draft: str, system: str, request: gr.Request) -> str:
        desk = self._parts.desk(request)
        if desk.reply is not None:
            return gr.skip()
        prompt = [message for message in desk.current.prompt() if message["role"] != "system"]
        if system:
            prompt.insert(0, {"role": "system", "content": system})
        try:
            use = await self._parts.source.context_use(prompt, draft)
        except WorkbenchError as error:
            return meter_html(None, str(error))
        return meter_html(use)

    # What is done. Each gives the text to put into the message box, or None to leave it.

    def _ask(self, desk: Desk, settings: ChatSettings) -> None:
        """Have the conversation's running reply written."""
        ask = ChatAsk(
            params=settings.params(),
            functions=self._parts.toolbox.functions(settings.tools),
            must_call=settings.must_call,
            thinking=THINKING[settings.thinking],
        )
        desk.start(self._parts.source, ask, self._parts.toolbox if settings.tools else None)

    async def _send(self, desk: Desk, event: gr.EventData, text: str, *values: Any) -> str:
        settings = ChatSettings.of(*values)
        if not text.strip():
            raise RequestError("the message is empty: write something to send.")
        if desk.reply is not None:
            raise RequestError("a reply is running: stop it, or wait for its end.")
        settings.params()
        self._use_system(desk, settings)
        desk.current.add("user", text.rstrip())
        desk.current.reply(settings.start)
        self._ask(desk, settings)
        return ""

    def begin_again(self, desk: Desk, values: tuple, change: Callable[[Conversation], object]) -> None:
        """Have a reply written after a change that opens one. Wrong settings leave everything as it was."""
        settings = ChatSettings.of(*values)
        settings.params()
        self._use_system(desk, settings)
        change(desk.current)
        self._ask(desk, settings)

    async def _regenerate(self, desk: Desk, event: gr.EventData, *values: Any) -> None:
        self.begin_again(desk, values, lambda chat: chat.regenerate(_number(desk.selected_message())))

    async def _retry(self, desk: Desk, event: gr.EventData, *values: Any) -> None:
        owner = chat_entries(desk.current).owner(event.index)
        self.begin_again(desk, values, lambda chat: chat.regenerate(_reply_to(chat, owner)))

    async def _resume(self, desk: Desk, event: gr.EventData, *values: Any) -> None:
        self.begin_again(desk, values, lambda chat: chat.resume())

    async def _edit_question(self, desk: Desk, event: gr.EventData, *values: Any) -> None:
        owner = chat_entries(desk.current).owner(event.index)

        def change(chat: Conversation) -> None:
            chat.edit(owner, str(event.value))
            chat.regenerate()

        self.begin_again(desk, values, change)

    async def _undo(self, desk: Desk, event: gr.EventData) -> str:
        desk.selected = None
        return desk.current.undo()

    async def _clear(self, desk: Desk, event: gr.EventData) -> None:
        desk.stop()
        desk.current.clear()

    async def _select(self, desk: Desk, event: gr.EventData) -> None:
        desk.selected = chat_entries(desk.current).owner(event.index)

    async def _show_older(self, desk: Desk, event: gr.EventData) -> None:
        self._show_version(desk, -1)

    async def _show_newer(self, desk: Desk, event: gr.EventData) -> None:
        self._show_version(desk, 1)

    def _show_version(self, desk: Desk, step: int) -> None:
        message = desk.selected_message()
        if message is not None:
            desk.selected = desk.current.show_next(message.number, step).number

    async def _branch(self, desk: Desk, event: gr.EventData) -> None:
        message = desk.selected_message()
        if message is None:
            raise RequestError("the conversation is empty: there is nothing to branch from.")
        desk.put(desk.current.branch(message.number))

    async def _save_edit(self, desk: Desk, event: gr.EventData, text: str) -> None:
        reply = desk.selected_reply()
        if reply is not None:
            desk.selected = desk.current.edit(reply.number, text).number

    async def _new(self, desk: Desk, event: gr.EventData) -> None:
        desk.new(desk.current.system)

    async def _open(self, desk: Desk, event: gr.EventData, conversation_id: str) -> None:
        desk.open(conversation_id)

    async def _delete(self, desk: Desk, event: gr.EventData) -> None:
        desk.delete()

    async def _rename(self, desk: Desk, event: gr.EventData, name: str) -> None:
        if name != desk.current.title:
            desk.current.title = name

    async def _import(self, desk: Desk, event: gr.EventData, content: bytes) -> None:
        if len(content) > _MAX_IMPORT_BYTES:
            raise RequestError("the file is larger than 20 MB.")
        desk.put(*reversed(import_conversations(content.decode("utf-8", "replace"))))

    async def _open_editor(self, request: gr.Request) -> tuple[Any, Any]:
        reply = self._parts.desk(request).selected_reply()
        if reply is None or reply.is_running:
            raise shown_error(RequestError("there is no finished reply to edit."))
        return gr.Group(visible=True), reply.text

    async def _export_one(self, request: gr.Request) -> tuple[str, str]:
        return export_conversations([self._parts.desk(request).current]), "conversation.json"

    async def _export_all(self, request: gr.Request) -> tuple[str, str]:
        return export_conversations(self._parts.desk(request).conversations), "conversations.json"

    async def _stop(self, request: gr.Request) -> None:
        self._parts.desk(request).stop()

    @staticmethod
    def _use_system(desk: Desk, settings: ChatSettings) -> None:
        desk.current.system = settings.system.strip() or None


def _button(label: str, elem_id: str, **options: Any) -> gr.Button:
    return gr.Button(label, elem_id=elem_id, size="sm", min_width=60, **options)


def _choices(desk: Desk) -> list[tuple[str, str]]:
    return [(c.title or "New conversation", c.conversation_id) for c in desk.conversations]


def _number(message: Message | None) -> int | None:
    return None if message is None else message.number


def _reply_to(conversation: Conversation, number: int | None) -> int | None:
    """The shown reply to a question (itself, for a reply); None when there is none."""
    path = conversation.messages
    for index, message in enumerate(path):
        if message.number == number:
            return path[index + 1].number if message.role == "user" and index + 1 < len(path) else number
    return None


def _selected_words(desk: Desk, message: Message | None) -> str:
    if message is None or desk.selected is None:
        return ""
    who = "your message" if message.role == "user" else "the reply"
    begin = " ".join(message.text.split())[:60]
    return f"Selected: {who} “{begin}”"
