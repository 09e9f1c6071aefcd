"""The conversation on the Chat tab: its messages, the box, the buttons, the editor of a reply. Components only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dashboards.meter import meter_html

__all__ = ["ChatPane"]

_WELCOME = """### Ask something
Enter sends, Shift+Enter makes a new line, Esc stops, Ctrl+Enter regenerates."""
_LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
    {"left": "\\[", "right": "\\]", "display": True},
]


class ChatPane:
    """Builds the components into the Blocks that is open."""

    def __init__(self) -> None:
        self.chatbot = gr.Chatbot(
            label="Conversation",
            show_label=False,
            height="58vh",
            min_height=260,
            editable="user",
            buttons=["copy", "copy_all"],
            feedback_options=None,
            latex_delimiters=_LATEX,
            placeholder=_WELCOME,
            elem_id="wb-chatbot",
            # Tags of a model are text, not markup.
            allow_tags=False,
        )
        self.box = gr.Textbox(
            "",
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
            self.stop = _button("Stop", "wb-stop", variant="stop", interactive=False)
            self.regenerate = _button("Regenerate", "wb-regenerate")
            self.resume = _button("Continue", "wb-continue")
            self.undo = _button("Undo", "wb-undo")
            self.older = _button("‹ Older version", "wb-older", interactive=False)
            self.newer = _button("Newer version ›", "wb-newer", interactive=False)
            self.edit = _button("Edit reply", "wb-edit")
            self.branch = _button("Branch here", "wb-branch")
            self.look_inside = _button("Look inside", "wb-look-inside")
        self.status = gr.HTML("", elem_id="wb-selected", padding=False)
        with gr.Group(visible=False, elem_id="wb-editor") as self.editor:
            self.editor_text = gr.Textbox(label="Text of the reply", lines=6, max_lines=20)
            with gr.Row():
                self.editor_save = gr.Button("Save as a new version", variant="primary", size="sm")
                self.editor_cancel = gr.Button("Cancel", size="sm")


def _button(label: str, elem_id: str, **options: Any) -> gr.Button:
    return gr.Button(label, elem_id=elem_id, size="sm", min_width=60, **options)
