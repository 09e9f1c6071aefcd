"""Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing for work that ends soon."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from workbench.byte_size import byte_size
from workbench.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["ProgressDisplay"]

# Work shorter than this needs no display.
_SHOW_AFTER_S = 1.0
# A log gets one line per stage, and one more each time this much has passed.
_LINE_EVERY_S = 10.0


class ProgressDisplay:
    """A progress callback for the time of a `with` block.

    A bar comes after a second, lines after `lines_after_s`.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        lines_after_s: float = _SHOW_AFTER_S,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._lines_after_s = lines_after_s
        self._started_s: float | None = None
        self._stage: str | None = None
        self._stage_started_s = 0.0
        self._last_line_s = float("-inf")
        self._bar: RichProgress | None = None

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if self._started_s is None:
            self._started_s = now
        is_terminal = self._stream.isatty()
        if now - self._started_s < (_SHOW_AFTER_S if is_terminal else self._lines_after_s):
            return
        is_new = progress.stage != self._stage
        if is_new:
            self._stage, self._stage_started_s = progress.stage, now
        if is_terminal:
            self._show_bar(progress, is_new)
        elif is_new or now - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = now
            print(_line(progress, now - self._stage_started_s), file=self._stream, flush=True)

    def _show_bar(self, progress: Progress, is_new: bool) -> None:
        if self._bar is None:
            self._bar = _start_bar(self._stream)
        if is_new:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(progress.stage, total=progress.total, amount="")
        self._bar.update(
            self._bar.task_ids[-1], completed=progress.completed, total=progress.total, amount=_amount(progress)
        )


def _start_bar(stream: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=Console(file=stream),
        transient=True,
    )
    bar.start()
    return bar


def _amount(progress: Progress) -> str:
    if progress.total is None and not progress.completed:
        return ""
    if not progress.unit:
        return ""
    if progress.unit == "B":
        done, total = byte_size(progress.completed), byte_size(progress.total)
        return done if progress.total is None else f"{done} of {total}"
    done = str(progress.completed) if progress.total is None else f"{progress.completed} of {progress.total}"
    return f"{done} {progress.unit}"


def _line(progress: Progress, elapsed_s: float) -> str:
    """ "download: 21.0 MB of 98.4 MB (21%), 12 s"; what is unknown is left out."""
    amount, fraction = _amount(progress), progress.fraction
    share = "" if fraction is None else f" ({fraction:.0%})"
    parts = [f"{amount}{share}" if amount else "", f"{elapsed_s:.0f} s" if elapsed_s >= 1 else ""]
    told = ", ".join(part for part in parts if part)
    return f"{progress.stage}: {told}" if told else progress.stage
