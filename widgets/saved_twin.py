"""A live widget in words, as an output of its own: out of sight while the widget runs, there in a saved notebook."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import traitlets

from workbench.twin import Twin

__all__ = ["SavedTwin"]

_log = logging.getLogger(__name__)


class SavedTwin:
    """Replaces its output whenever the words have changed, so that a notebook is saved with what was so at that time.

    The widget's own output can't be replaced: the page would draw the widget anew. `words()` gives the twin now, and is
    called on any thread.
    """

    def __init__(self, words: Callable[[], Twin], publish: Callable[..., object]) -> None:
        self._words = words
        self._publish = publish
        self._display_id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._shown: Twin | None = None
        self._shown_number = -1
        self.refresh()

    @classmethod
    def in_notebook(cls, words: Callable[[], Twin]) -> SavedTwin | None:
        """Put the output into the cell that runs; None where no kernel runs one."""
        ipython: Any = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython is not None else None
        if getattr(shell, "kernel", None) is None:
            return None
        return cls(words, shell.display_pub.publish)

    def follow(self, parts: Iterable[traitlets.HasTraits]) -> None:
        """Look at the words again whenever something of those widgets changes."""
        for part in parts:
            part.observe(lambda _: self.refresh())

    def refresh(self) -> None:
        """Replace the output if the words are others now."""
        number = next(self._numbers)
        try:
            # Not under the lock: they may wait for a lock of the widget's that a caller of this holds.
            twin = self._words()
            with self._lock:
                if number > self._shown_number:
                    self._shown_number = number
                    self._replace(twin)
        except Exception:  # boundary: a widget goes on where its words can't be kept
            _log.debug("a widget's words could not be kept in the notebook", exc_info=True)

    def _replace(self, twin: Twin) -> None:
        if twin == self._shown:
            return
        is_first, self._shown = self._shown is None, twin
        # The style sheet keeps the class out of sight.
        page = f'<div class="wb-saved">{twin.as_html()}</div>'
        self._publish(
            {"text/plain": twin.as_text(), "text/html": page},
            transient={"display_id": self._display_id},
            update=not is_first,
        )
