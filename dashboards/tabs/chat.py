"""The chat tab: what its parts show of a page's desk, and which event makes which change."""

from __future__ import annotations

import asyncio
import html
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr

from dashboards.chat_changes import ChatChanges
from dashboards.chat_entries import chat_entries
from dashboards.chat_settings import THINKING, ChatSettings
from dashboards.desk import Desk
from dashboards.meter import meter_html
from dashboards.parts import AppParts, shown_error, warn_of
from dashboards.tabs.chat_controls import ChatControls
from dashboards.tabs.chat_pane import ChatPane
from dashboards.tabs.conversation_list import ConversationList
from dashboards.tabs.download import offer_download
from workbench.conversation import Message, export_conversations
from workbench.errors import RequestError, WorkbenchError

__all__ = ["ChatTab"]

_STORAGE_KEY = "workbench-conversations"
# A number by which the tabs of one browser are known to belong together.
_BROWSER_KEY = "workbench-browser"
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
# It opens under the buttons, which may be the end of the screen, and is drawn after the event.
_GO_TO_EDITOR = """() => {
  let left = 120;
  const go = () => {
    const area = document.querySelector("#wb-editor textarea");
    if (area) { area.scrollIntoView({ block: "center" }); area.focus(); }
    else if (left-- > 0) requestAnimationFrame(go);
  };
  go();
}"""


class ChatTab:
    """Builds the tab into the Blocks that is open, and wires it up.

    `outputs` are the components that `view` gives values for, `settings` those whose values make up `ChatSettings`.
    """

    def __init__(self, parts: AppParts) -> None:
        self._parts = parts
        self.changes = ChatChanges(parts.source, parts.toolbox)
        self._store = gr.BrowserState("", storage_key=_STORAGE_KEY, secret="kept in this browser only")
        self._browser = gr.BrowserState("", storage_key=_BROWSER_KEY, secret="kept in this browser only")
        with gr.Row(elem_classes="wb-chat"):
            with gr.Column(scale=3, min_width=320):
                self._pane = ChatPane()
            with gr.Column(scale=1, min_width=300, elem_classes="wb-side"):
                self._list = ConversationList()
                controls = ChatControls(parts.shelf, parts.toolbox.names)
        self._controls, self._presets = controls.by_name, controls.presets
        self._system = controls.system
        self.settings = controls.inputs
        self.look_inside = self._pane.look_inside
        pane, conversations = self._pane, self._list
        self.outputs = [pane.chatbot, pane.box, pane.status, pane.stop, pane.older, pane.newer]
        self.outputs += [conversations.list, conversations.name, conversations.back, self._system, self._store]
        self._wire_replies()
        self._wire_changes()
        self._wire_conversations()
        self._wire_meter()

    def _wire_replies(self) -> None:
        """Events after which a reply may run."""
        pane, changes = self._pane, self.changes

        def with_settings(change: Callable[..., Any]) -> Callable[..., Any]:
            return lambda desk, event, *values: change(desk, event, ChatSettings.of(*values))

        self._begin(
            pane.box.submit,
            lambda desk, event, text, *values: changes.send(desk, text, ChatSettings.of(*values)),
            [pane.box, *self.settings],
        )
        for event, change in (
            (pane.chatbot.retry, lambda desk, event, settings: changes.retry(desk, event.index, settings)),
            (pane.chatbot.edit, lambda desk, event, s: changes.edit_question(desk, event.index, str(event.value), s)),
            (pane.regenerate.click, lambda desk, event, settings: changes.regenerate(desk, settings)),
            (pane.resume.click, lambda desk, event, settings: changes.resume(desk, settings)),
        ):
            self._begin(event, with_settings(change), self.settings)
        pane.stop.click(self._stop, None, None, **_OPTIONS)

    def _wire_changes(self) -> None:
        """Events that change the conversation, and are done at once."""
        pane, changes = self._pane, self.changes
        for undo in (pane.chatbot.undo, pane.undo.click):
            self._quick(undo, lambda desk, event: changes.undo(desk))
        # The bin in its corner is easily hit: what it takes away stays in the list.
        self._quick(pane.chatbot.clear, lambda desk, event: _begin_new(desk))
        self._quick(
            pane.chatbot.select, lambda desk, event: changes.select(desk, event.index), trigger_mode="always_last"
        )
        self._quick(pane.older.click, lambda desk, event: changes.show_version(desk, -1))
        self._quick(pane.newer.click, lambda desk, event: changes.show_version(desk, 1))
        self._quick(pane.branch.click, lambda desk, event: changes.branch(desk))
        opened = pane.edit.click(self._open_editor, None, [pane.editor, pane.editor_text], **_OPTIONS)
        opened.success(None, None, None, js=_GO_TO_EDITOR, api_visibility="private")
        pane.editor_cancel.click(lambda: gr.Group(visible=False), None, pane.editor, **_OPTIONS)
        self._quick(
            pane.editor_save.click, lambda desk, event, text: changes.edit_reply(desk, text), [pane.editor_text]
        ).then(lambda: gr.Group(visible=False), None, pane.editor, api_visibility="private")

    def _wire_conversations(self) -> None:
        conversations, changes = self._list, self.changes
        self._begin(
            conversations.list.input,
            lambda desk, event, conversation_id: desk.open(conversation_id),
            [conversations.list],
            trigger_mode="always_last",
        )
        self._quick(conversations.new.click, lambda desk, event: _begin_new(desk))
        self._quick(conversations.delete.click, lambda desk, event: desk.delete())
        self._quick(conversations.back.click, lambda desk, event: desk.bring_back())
        for event in (conversations.name.submit, conversations.name.blur):
            self._quick(event, lambda desk, event, title: changes.rename(desk, title), [conversations.name])
        self._quick(
            conversations.imported.upload,
            lambda desk, event, content: changes.take_in(desk, content),
            [conversations.imported],
        )
        offer_download(conversations.export, self._export_one)
        offer_download(conversations.export_all, self._export_all)

    def _wire_meter(self) -> None:
        pane, system = self._pane, self._system
        options = {**_OPTIONS, "trigger_mode": "always_last"}
        told = [self._controls[name] for name in ("tools", "thinking")]
        for part in (pane.box, system, pane.chatbot, *told):
            part.change(self._measure, [pane.box, system, *told], pane.meter, **options)
        system.change(self._note_system, system, None, **options)

    def restore_on(self, demo: gr.Blocks) -> None:
        """When the page opens, bring back what the browser has kept."""
        demo.load(self._restore, [self._store, self._browser], [*self.outputs, self._browser], **_OPTIONS)
        self._presets.show_on(demo)

    def _quick(
        self, event: Callable[..., Any], fn: Callable[..., Any], inputs: list[Any] | None = None, **options: Any
    ) -> Any:
        """An event that changes the desk and shows it. `fn` takes the desk, the event and the inputs' values, and gives
        the text to put into the message box, or None to leave it."""

        async def change(request: gr.Request, event: gr.EventData, *values: Any) -> dict[Any, Any]:
            desk = self._parts.desk(request)
            before = desk.current
            box = None
            try:
                box = fn(desk, event, *values)
            except WorkbenchError as error:
                warn_of(error)
            return self.view(desk, box, is_other=desk.current is not before)

        return event(change, inputs, self.outputs, **_OPTIONS, **options)

    def _begin(self, event: Callable[..., Any], fn: Callable[..., Any], inputs: list[Any], **options: Any) -> None:
        """An event after which a reply may run: the change is shown at once, then the reply as it grows."""
        self._quick(event, fn, inputs, **options).then(self.follow, None, self.outputs, **_OPTIONS)

    def view(self, desk: Desk, box: str | None = None, *, is_other: bool = False) -> dict[Any, Any]:
        """The outputs for the desk as it is; `box` replaces what is being typed. `is_other`: another conversation has
        become the current one. Without it the system prompt is left alone: somebody may be writing it.
        """
        pane, current, is_running = self._pane, desk.current, desk.reply is not None
        selected = desk.selected_message()
        versions = current.versions(selected.number) if selected else None
        place = versions.numbers.index(selected.number) if versions else 0
        view: dict[Any, Any] = {
            pane.chatbot: _entries(desk),
            pane.status: _selected_words(desk, selected),
            pane.stop: gr.Button(interactive=is_running),
            pane.older: gr.Button(interactive=bool(versions) and place > 0 and not is_running),
            pane.newer: gr.Button(interactive=bool(versions) and place < versions.count - 1 and not is_running),
            self._list.list: gr.Radio(choices=_choices(desk), value=current.conversation_id),
            self._list.name: current.title,
            self._list.back: gr.Button(visible=desk.deleted is not None),
        }
        if is_other:
            view[self._system] = current.system or ""
        if box is not None:
            view[pane.box] = box
        text = None if is_running else desk.to_store()
        if text is not None:
            view[self._store] = text
        return view

    async def follow(self, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        """The running reply of the current conversation, as long as it is the current one."""
        desk = self._parts.desk(request)
        reply = desk.reply
        # Gradio empties the outputs of a generator that ends without a word.
        yield self.view(desk)
        if reply is None:
            return
        try:
            async for _ in reply.updates(self._parts.update_interval_s):
                if desk.reply is not reply:
                    return
                yield {self._pane.chatbot: _entries(desk)}
        except (asyncio.CancelledError, GeneratorExit):
            # The page is gone.
            reply.stop()
            raise
        if any(message is reply.message for message in desk.current.messages):
            yield self.view(desk)

    async def _restore(self, stored: str, browser_id: str, request: gr.Request) -> dict[Any, Any]:
        desk = self._parts.desk(request)
        browser_id = browser_id or uuid.uuid4().hex
        self._parts.desks.join(desk, browser_id)
        desk.restore(stored)
        return {**self.view(desk, is_other=bool(desk.current.all_messages)), self._browser: browser_id}

    async def _note_system(self, system: str, request: gr.Request) -> None:
        self._parts.desk(request).current.system = system.strip() or None

    async def _measure(
        self, draft: str | None, system: str | None, tools: list[str] | None, thinking: str, request: gr.Request
    ) -> str:
        desk = self._parts.desk(request)
        if desk.reply is not None:
            return gr.skip()
        prompt = [message for message in desk.current.prompt() if message["role"] != "system"]
        # Blanks around both are not sent.
        if system and system.strip():
            prompt.insert(0, {"role": "system", "content": system.strip()})
        functions = self._parts.toolbox.functions(tools or ())
        try:
            use = await self._parts.source.context_use(prompt, (draft or "").rstrip(), functions, THINKING[thinking])
        except WorkbenchError as error:
            return meter_html(None, str(error))
        return meter_html(use)

    async def _stop(self, request: gr.Request) -> None:
        self._parts.desk(request).stop()

    async def _open_editor(self, request: gr.Request) -> tuple[Any, Any]:
        reply = self._parts.desk(request).selected_reply()
        if reply is None or reply.is_running:
            raise shown_error(RequestError("there is no finished reply to edit."))
        return gr.Group(visible=True), reply.text

    async def _export_one(self, request: gr.Request) -> tuple[str, str]:
        return export_conversations([self._parts.desk(request).current]), "conversation.json"

    async def _export_all(self, request: gr.Request) -> tuple[str, str]:
        return export_conversations(self._parts.desk(request).conversations), "conversations.json"


def _begin_new(desk: Desk) -> None:
    desk.new(desk.current.system)


def _entries(desk: Desk) -> list[dict[str, Any]]:
    reply = desk.reply
    live = "" if reply is None else reply.live.line(asyncio.get_running_loop().time())
    return chat_entries(desk.current, live).entries


def _choices(desk: Desk) -> list[tuple[str, str]]:
    return [(c.title or "New conversation", c.conversation_id) for c in desk.conversations]


def _selected_words(desk: Desk, message: Message | None) -> str:
    if message is None or desk.selected is None:
        return ""
    who = "your message" if message.role == "user" else "the reply"
    begin = html.escape(" ".join(message.text.split())[:60])
    return f"<p>Selected: {who} “{begin}”</p>"
