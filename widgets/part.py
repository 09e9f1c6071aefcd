"""What all widgets here share: words where nothing is live, and a close that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import traitlets

from widgets.cell_run import note_made, runs_unwatched
from widgets.saved_twin import SavedTwin
from widgets.shared_session import let_go
from widgets.silent_comm import SilentComm
from workbench.twin import Twin, is_headless

__all__ = ["Part"]

# Not long enough to be felt where a cell shows its value.
_SETTLE_S = 2.0


class Part:
    """Mixin for ipywidgets, named before the widget class. `twin()` is what is shown where nothing is live.

    A session that was made for it alone is in `_session`.
    """

    # Once it is shown in a notebook.
    _saved: SavedTwin | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        note_made(self)

    def twin(self) -> Twin:
        """The widget in words, as it stands now."""
        raise NotImplementedError

    def open(self) -> None:
        """Make it known to pages. Where none is asked for it talks to nobody: an executed notebook would save the state
        of each widget, with its code."""
        if is_headless() and self.comm is None:
            self.comm = SilentComm()
        super().open()

    def close(self) -> None:
        """Take the widget away, with its layout model, which ipywidgets would leave open. Also called by `__del__`."""
        let_go(getattr(self, "_session", None))
        was_open = self.comm is not None
        super().close()
        if was_open:
            self.layout.close()
        self._keep_words()

    def _settle(self, timeout_s: float) -> None:
        """Wait for what makes the words, so that a saved notebook has them. Nothing, where they are there at once."""

    def _worded(self) -> Iterable[traitlets.HasTraits]:
        """The widgets whose changes change the words."""
        return (self,)

    def _keep_words(self) -> None:
        """Have the notebook hold the words as they are now, where it shows the widget."""
        if self._saved is not None:
            self._saved.refresh()

    def __repr__(self) -> str:
        return self.twin().as_text()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        self._settle(_SETTLE_S)
        twin = self.twin()
        words = {"text/plain": twin.as_text(), "text/html": twin.as_html()}
        if is_headless():
            return words
        if self._saved is None:
            self._saved = SavedTwin.in_notebook(self.twin)
            if self._saved is not None:
                self._saved.follow(self._worded())
        if self._saved is not None and not runs_unwatched():
            # They stand in an output before this one, where they can follow what happens.
            self._saved.show()
            words = {"text/plain": twin.title, "text/html": ""}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {**words, "application/vnd.jupyter.widget-view+json": view}
