"""Long work's progress as a labelled bar."""

from __future__ import annotations

import html

from workbench.progress import Progress

__all__ = ["progress_bar"]


def progress_bar(what: str, progress: Progress | None) -> str:
    """HTML of a bar, in words too; without a known total the bar only says that something goes on."""
    stage = "beginning" if progress is None else progress.stage
    fraction = None if progress is None else progress.fraction
    value = "" if fraction is None else f' value="{fraction:.3f}"'
    share = "" if fraction is None else f", {fraction:.0%}"
    return f'<label>{html.escape(what)}: {html.escape(stage)}{share}<br><progress max="1"{value}></progress></label>'
