"""The app's look: colours and fonts of this machine only, in light and dark."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

__all__ = ["CSS_PATHS", "head", "theme"]

_ASSETS = Path(__file__).parent / "assets"
CSS_PATHS = [_ASSETS / "page.css"]


def theme() -> gr.themes.Base:
    """A quiet theme; fonts are the system's own, so that nothing is fetched."""
    plain = gr.themes.Font
    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        secondary_hue=gr.themes.colors.slate,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_sm,
        font=[plain("system-ui"), plain("sans-serif")],
        font_mono=[plain("ui-monospace"), plain("monospace")],
    )


def head() -> str:
    """What goes into the page's head: the keyboard."""
    return f"<script>{(_ASSETS / 'page.js').read_text('utf-8')}</script>"
