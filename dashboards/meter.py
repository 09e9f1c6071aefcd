"""The context meter as HTML: how much of the context is taken by what. Pure; knows no component."""

from __future__ import annotations

import html

from workbench.conversation import ContextUse

__all__ = ["meter_html"]


def meter_html(use: ContextUse | None, unknown: str = "") -> str:
    """A bar of system, history, draft and free tokens with its figures in words."""
    if use is None:
        return f'<div class="wb-meter">{html.escape(unknown)}</div>'
    shares = (
        ("system", use.system_tokens),
        ("history", use.history_tokens),
        ("draft", use.draft_tokens),
    )
    total = max(use.max_context, use.used_tokens)
    bars = "".join(
        f'<span class="wb-{name}" style="width:{100 * tokens / total:.2f}%"></span>'
        for name, tokens in shares
        if tokens
    )
    state = "" if use.fits else " wb-full"
    words = html.escape(use.line())
    return f'<div class="wb-meter{state}"><div class="wb-bar" aria-hidden="true">{bars}</div><span>{words}</span></div>'
