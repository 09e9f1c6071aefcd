"""A button that hands text to the browser as a file, without one on the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr

__all__ = ["offer_download"]

_SAVE_JS = """(text, name) => {
    if (!text) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""
_OPTIONS: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


def offer_download(button: gr.Button, make: Callable[..., Awaitable[tuple[str, str]] | tuple[str, str]]) -> None:
    """Let the button save what `make` gives: a text of JSON, and the name of its file."""
    # Hidden, not absent: what is absent has no value in the browser.
    text, name = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    # Where `make` raises there is no file, and what was saved before is not saved again.
    button.click(make, None, [text, name], **_OPTIONS).success(
        None, [text, name], None, js=_SAVE_JS, api_visibility="private"
    )
