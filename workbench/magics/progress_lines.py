"""Progress of a load as a few plain lines: for outputs that are kept, where bars would pile up."""

from __future__ import annotations

from collections.abc import Callable

from workbench.session_status import SessionState, SessionStatus

__all__ = ["ProgressLines"]

_STEP = 0.25


class ProgressLines:
    """An observer of a session: says each stage once, and each further quarter of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stage: str | None = None
        self._said = 0.0

    def __call__(self, status: SessionStatus) -> None:
        """Called with every change of the session."""
        progress = status.progress
        # What is only waited for would be said in some runs and not in others.
        if status.state is not SessionState.LOADING or progress is None or not progress.unit:
            return
        if progress.stage != self._stage:
            self._stage, self._said = progress.stage, 0.0
            self._say(progress.stage)
        fraction = progress.fraction or 0.0
        if fraction >= self._said + _STEP:
            self._said = int(fraction / _STEP) * _STEP
            self._say(f"{progress.stage}: {self._said:.0%}")
