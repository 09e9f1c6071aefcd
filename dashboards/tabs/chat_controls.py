"""The controls beside the chat whose values make up `ChatSettings`, with their presets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from dashboards.chat_settings import FORMATS, THINKING
from dashboards.tabs.presets import PresetBar
from workbench.conversation import PresetShelf

__all__ = ["ChatControls"]


class ChatControls:
    """Builds the controls into the Blocks that is open. `tools` are the functions that a model may call."""

    def __init__(self, shelf: PresetShelf, tools: Iterable[str]) -> None:
        self.by_name: dict[str, Any] = {}
        with gr.Accordion("Sampling", open=True, elem_id="wb-sampling"):
            self.presets = PresetBar(shelf)
            self._build_sampling(self.by_name)
        with gr.Accordion("Answer format and tools", open=False, elem_id="wb-format"):
            self._build_format(self.by_name, tools)
        self.presets.wire(self.by_name)

    @property
    def system(self) -> gr.Textbox:
        """The system prompt's."""
        return self.by_name["system"]

    @property
    def inputs(self) -> list[Any]:
        """All, in the order of the fields of `ChatSettings`."""
        return list(self.by_name.values())

    @staticmethod
    def _build_sampling(controls: dict[str, Any]) -> None:
        controls["system"] = gr.Textbox("", label="System prompt", lines=2, max_lines=8, elem_id="wb-system")
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

    @staticmethod
    def _build_format(controls: dict[str, Any], tools: Iterable[str]) -> None:
        controls["format"] = gr.Dropdown(list(FORMATS), value="Text", label="The answer is", elem_id="wb-answer-format")
        controls["format_text"] = gr.Code(
            "", label="Schema, expression or grammar", language="json", lines=6, elem_id="wb-schema"
        )
        controls["tools"] = gr.CheckboxGroup(list(tools), label="Tools the model may call")
        controls["must_call"] = gr.Checkbox(False, label="It must call one")
        controls["thinking"] = gr.Dropdown(list(THINKING), value=next(iter(THINKING)), label="Reasoning")
        controls["start"] = gr.Textbox("", label="Begin the reply with", lines=1, max_lines=4)
