"""A live widget in words, as an output of its own: out of sight while the widget runs, there in a saved notebook."""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections.abc import Callable, Iterable

import traitlets

from widgets.cell_run import current_run
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

    @classmethod
    def in_notebook(cls, words: Callable[[], Twin]) -> SavedTwin | None:
        """One for the notebook that is open; None where nobody looks at one."""
        if current_run() is None:
            return None
        from IPython import get_ipython

        # Looked up each time: while a cell's output is captured it is another.
        return cls(words, lambda *bundle, **options: get_ipython().display_pub.publish(*bundle, **options))

    def show(self) -> None:
        """Put the words into the cell that runs."""
        self._say(self._words(), is_new=True)

    def follow(self, parts: Iterable[traitlets.HasTraits]) -> None:
        """Look at the words again whenever something of those widgets changes."""
        for part in parts:
            part.observe(lambda _: self.refresh())

    def refresh(self) -> None:
        """Replace the words, wherever they were put, if they are others now."""
        number = next(self._numbers)
        try:
            # Not under the lock: they may wait for a lock of the widget's that a caller of this holds.
            twin = self._words()
            with self._lock:
                if number > self._shown_number:
                    self._shown_number = number
                    if twin != self._shown:
                        self._say(twin, is_new=False)
        except Exception:  # boundary: a widget goes on where its words can't be kept
            _log.debug("a widget's words could not be kept in the notebook", exc_info=True)

    def _say(self, twin: Twin, *, is_new: bool) -> None:
        self._shown = twin
        # The style sheet keeps the class out of sight.
        page = f'<div class="wb-saved">{twin.as_html()}</div>'
        bundle = {"text/plain": twin.as_text(), "text/html": page}
        self._publish(bundle, transient={"display_id": self._display_id}, update=not is_new)
