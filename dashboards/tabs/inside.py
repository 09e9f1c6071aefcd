"""The Inside tab: how sure the model was of each token, what else it might have said, and what comes next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from dashboards.chat_settings import ChatSettings
from dashboards.desk import Desk
from dashboards.figures import HEAT_SCALES, heat_spans, heat_summary, next_token_figure, next_tokens, visible
from dashboards.parts import AppParts, shown_error
from dashboards.sources import ChatAsk
from dashboards.tabs.chat import ChatTab
from workbench.conversation import Conversation, Message, ScoredToken
from workbench.engine import SamplingParams
from workbench.errors import RequestError, WorkbenchError

__all__ = ["InsideTab"]

_NUM_ALTERNATIVES = 8
_NUM_NEXT = 12
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


class InsideTab:
    """Builds the tab into the Blocks that is open. `chat` is the tab whose reply is looked into."""

    def __init__(self, parts: AppParts, chat: ChatTab, tabs: gr.Tabs) -> None:
        self._parts = parts
        self._chat = chat
        self._tabs = tabs
        scales = list(HEAT_SCALES)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.text = gr.Textbox(
                    label="A text of yours", lines=3, max_lines=12, elem_id="wb-score-text", info="scored as it stands"
                )
                with gr.Row(elem_classes="wb-bar-of-buttons"):
                    self.score = gr.Button("Score this text", size="sm", variant="primary", elem_id="wb-score")
                    self.score_reply = gr.Button(
                        "Score the selected reply of the chat", size="sm", elem_id="wb-score-reply"
                    )
                self.scale = gr.Radio(scales, value=scales[0], label="Colour shows")
                self.heat = gr.HighlightedText(
                    label="Heat map: choose a token", combine_adjacent=False, elem_id="wb-heat", show_whitespaces=True
                )
                self.summary = gr.Markdown("", elem_id="wb-heat-summary")
            with gr.Column(scale=2, min_width=300):
                self.token = gr.Markdown("No token is chosen.", elem_id="wb-token")
                self.alternatives = gr.Radio(
                    [], label="What could have stood there", elem_id="wb-alternatives", elem_classes="wb-list"
                )
                self.go_on = gr.Button(
                    "Go on from here with that token", size="sm", interactive=False, elem_id="wb-go-on"
                )
                self.show_next = gr.Button("What comes next after the text or the chat?", size="sm", elem_id="wb-next")
                self.next_words = gr.Markdown("", elem_id="wb-next-words")
                self.next_plot = gr.Plot(label="Next token", show_label=False, elem_id="wb-next-plot")
        self._wire()

    def _wire(self) -> None:
        tabs = self._tabs
        shown = [self.heat, self.summary, self.token, self.alternatives, self.go_on]
        self.score.click(self._guarded(self._score_text), [self.text, self.scale], shown, **_OPTIONS)
        self.score_reply.click(self._guarded(self._score_reply), [self.scale], shown, **_OPTIONS)
        self._chat.look_inside.click(lambda: gr.Tabs(selected="inside"), None, tabs, **_OPTIONS).then(
            self._guarded(self._score_reply), [self.scale], shown, **_OPTIONS
        )
        self.scale.input(self._recolour, [self.scale], [self.heat], trigger_mode="always_last", **_OPTIONS)
        self.heat.select(self._choose, None, [self.token, self.alternatives, self.go_on], **_OPTIONS)
        self.show_next.click(
            self._guarded(self._next), [self.text, *self._chat.settings], [self.next_words, self.next_plot], **_OPTIONS
        )
        self.go_on.click(
            self._guarded(self._go_on),
            [self.alternatives, *self._chat.settings],
            [self.text, tabs, *self._chat.outputs],
            **_OPTIONS,
        ).then(self._chat.follow, None, self._chat.outputs, **_OPTIONS)

    @staticmethod
    def _guarded(fn: Callable[..., Any]) -> Callable[..., Any]:
        async def called(request: gr.Request, *values: Any) -> Any:
            try:
                return await fn(request, *values)
            except WorkbenchError as error:
                raise shown_error(error) from None

        return called

    async def _score_text(self, request: gr.Request, text: str, scale: str) -> list[Any]:
        tokens = await self._parts.source.score(text, num_alternatives=_NUM_ALTERNATIVES)
        return self._show(self._parts.desk(request), tokens, None, scale)

    async def _score_reply(self, request: gr.Request, scale: str) -> list[Any]:
        desk = self._parts.desk(request)
        reply = desk.selected_reply()
        if reply is None or not reply.text:
            raise RequestError("the chat has no reply yet.")
        # Another one may be opened while this is scored.
        conversation = desk.current
        before = _prompt_before(desk, reply)
        tokens = await self._parts.source.score(reply.text, before, num_alternatives=_NUM_ALTERNATIVES)
        return self._show(desk, tokens, (conversation, reply), scale)

    def _show(
        self, desk: Desk, tokens: tuple[ScoredToken, ...], reply: tuple[Conversation, Message] | None, scale: str
    ) -> list[Any]:
        desk.scored, desk.scored_reply, desk.scored_index = tokens, reply, None
        return [
            heat_spans(tokens, scale),
            heat_summary(tokens),
            "No token is chosen.",
            gr.Radio(choices=[], value=None),
            gr.Button(interactive=False),
        ]

    async def _recolour(self, request: gr.Request, scale: str) -> list[tuple[str, float | None]]:
        return heat_spans(self._parts.desk(request).scored, scale)

    async def _choose(self, request: gr.Request, event: gr.SelectData) -> list[Any]:
        desk = self._parts.desk(request)
        index = event.index if isinstance(event.index, int) else event.index[0]
        if not 0 <= index < len(desk.scored):
            return [gr.skip()] * 3
        desk.scored_index = index
        token = desk.scored[index]
        choices = [
            (f"{visible(alternative.text)}  {alternative.probability:.2%}", number)
            for number, alternative in enumerate(token.alternatives)
        ]
        return [_token_words(token), gr.Radio(choices=choices, value=None), gr.Button(interactive=bool(choices))]

    async def _go_on(self, request: gr.Request, number: int | None, *values: Any) -> dict[Any, Any]:
        """Put the alternative in the token's place, cut there, and let the model go on."""
        desk = self._parts.desk(request)
        if desk.scored_index is None or number is None:
            raise RequestError("choose a token, and then one of its alternatives.")
        token = desk.scored[desk.scored_index]
        begin = "".join(t.text for t in desk.scored[: desk.scored_index]) + token.alternatives[number].text
        if desk.scored_reply is None:
            text = begin + await self._completed(begin, ChatSettings.of(*values))
            return {self.text: text}
        before = desk.current
        self._chat.changes.go_on_scored(desk, begin, ChatSettings.of(*values))
        view = self._chat.view(desk, is_other=desk.current is not before)
        return {**view, self._tabs: gr.Tabs(selected="chat")}

    async def _completed(self, prompt: str, settings: ChatSettings) -> str:
        pieces = [
            piece.text async for piece in self._parts.source.stream(ChatAsk(prompt=prompt, params=settings.params()))
        ]
        return "".join(pieces)

    async def _next(self, request: gr.Request, text: str, *values: Any) -> tuple[str, Any]:
        settings = ChatSettings.of(*values)
        asked = replace(settings.params(), max_tokens=1, structure=None, stop=(), min_tokens=0, n=1)
        params = SamplingParams(max_tokens=1, logprobs=True, top_logprobs=_NUM_NEXT)
        desk = self._parts.desk(request)
        messages = tuple(desk.current.prompt())
        if text:
            ask, where = ChatAsk(prompt=text, params=params), "after your text"
        elif messages:
            continues = messages[-1]["role"] == "assistant"
            ask = ChatAsk(messages=messages, params=params, continues=continues)
            where = "after the last reply, if it went on" if continues else "at the beginning of the reply"
        else:
            raise RequestError("write a text above, or begin a chat.")
        async for piece in self._parts.source.stream(ask):
            if piece.tokens:
                found = next_tokens(piece.tokens[0].alternatives, asked)
                likeliest = f"likeliest is “{visible(found[0].text)}” ({found[0].probability:.1%})" if found else ""
                return f"The next token {where}: {likeliest}.", next_token_figure(found)
        raise RequestError("the model ends here: no token comes next.")


def _prompt_before(desk: Desk, reply: Message) -> list[dict[str, object]]:
    """What the model was shown before a reply, its own tool steps included."""
    path = [message for message in desk.current.messages]
    before = path[: path.index(reply)]
    prompt: list[dict[str, object]] = []
    if desk.current.system:
        prompt.append({"role": "system", "content": desk.current.system})
    prompt += [part for message in before for part in message.as_prompt()]
    return prompt + reply.as_prompt()[:-1]


def _token_words(token: ScoredToken) -> str:
    if token.probability is None:
        return f"**{visible(token.text)}**: nothing comes before it, so it has no likelihood."
    rank = f", choice number {token.rank}" if token.rank else ""
    entropy = f", entropy at least {token.entropy_nats:.2f} nats" if token.entropy_nats is not None else ""
    return f"**{visible(token.text)}**: probability {token.probability:.2%}{rank}{entropy}"
