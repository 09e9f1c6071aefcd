"""The conversations beside the chat: open, name, delete, export and import. Components only."""

from __future__ import annotations

import gradio as gr

__all__ = ["ConversationList"]


class ConversationList:
    """Builds the components into the Blocks that is open."""

    def __init__(self) -> None:
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
            self.back = gr.Button("Bring back what was deleted", size="sm", visible=False, elem_id="wb-bring-back")
