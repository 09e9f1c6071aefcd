"""The panel: pickers, load bar, chat and live plot over one session. Composes; each part does its own work."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets

from widgets.chat_box import ChatBox
from widgets.live_plot import LivePlot
from widgets.load_bar import LoadBar
from widgets.menu import Menu
from widgets.model_picker import ModelPicker
from widgets.part import Part
from workbench.errors import ConfigError, EngineStoppedError
from workbench.session import LoadChoice, Session
from workbench.telemetry import Sampler
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["Workbench"]


class Workbench(Part, ipywidgets.VBox):
    """The workbench panel. Show it by making it the last value of a cell.

    `model`, `backend` and `precision` preset the pickers (None: chosen for you). `llm` shares an engine that is loaded
    already; `session` shares another surface's session. `system` and `sampling` go to the chat.

    One panel of a `name` is open at a time: making another closes the first with its widgets and threads. If the new
    one asks for the same thing, the loaded model stays and is handed over; else it is unloaded.
    """

    # Open panels by name. A cell that is run again has no other way to find the panel that it replaces.
    _panels: ClassVar[dict[str, Workbench]] = {}
    _panels_lock: ClassVar[threading.Lock] = threading.Lock()

    # Until there is something to close.
    name: str = ""
    _parts: tuple[ipywidgets.Widget, ...] = ()
    _finalize: Callable[[], object] = staticmethod(lambda: None)

    def __init__(
        self,
        llm: LlamaGPU | None = None,
        *,
        model: str = "default",
        backend: str | None = None,
        precision: str | None = None,
        context_length: int | None = None,
        session: Session | None = None,
        system: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        menu: Menu | None = None,
        name: str = "workbench",
    ) -> None:
        if llm is not None and session is not None:
            raise ConfigError("llm and session are both given: an engine is shared by one of them")
        if llm is not None and not llm.is_loaded:
            raise EngineStoppedError("llm is unloaded: load it again before it is shared")
        menu = menu or Menu.of_this_machine()
        self._asked = (LoadChoice(model, backend, precision, context_length), llm, session)
        # Whatever can be refused is refused here, before the earlier panel is closed.
        self.picker = ModelPicker(self._asked[0], menu=menu)
        self.name = name
        self.session = self._replace_earlier() or session or Session()
        if llm is not None:
            self.session.adopt(llm)
        self.load_bar = LoadBar(self.session, lambda: self.picker.choice)
        self.chat = ChatBox(self.session, system=system, sampling=sampling)
        self.plot = LivePlot(self.session.stats, statuses=menu.statuses)
        columns = ipywidgets.Box([self.chat, self.plot])
        columns.add_class("wb-columns")
        self.chat.add_class("wb-chat-column")
        self._parts = (self.picker, self.load_bar, self.chat, self.plot, columns, columns.layout)
        super().__init__([self.picker, self.load_bar, columns])
        self.add_class("wb-panel")
        own_session = self.session if session is None else None
        # At the latest when the process ends, the threads end and the engine is unloaded.
        self._finalize = weakref.finalize(self, _shut_down, own_session, self.plot.sampler)

    def _replace_earlier(self) -> Session | None:
        """Close the open panel of this name, and take this one's place. Gives its session if that can be kept."""
        with self._panels_lock:
            earlier = self._panels.pop(self.name, None)
            self._panels[self.name] = self
        if earlier is None:
            return None
        if not self._can_take_over(earlier):
            earlier.close()
            return None
        earlier._finalize.detach()
        earlier.close()
        earlier.plot.sampler.stop()
        return earlier.session

    def _can_take_over(self, earlier: Workbench) -> bool:
        """Whether what `earlier` has loaded is what this panel was asked for."""
        _, llm, _ = self._asked
        return earlier._asked == self._asked and (llm is None or earlier.session.is_sharing(llm))

    def close(self) -> None:
        """Stop the reply and the plot, unload an engine that the panel loaded, and take the panel away."""
        with self._panels_lock:
            if self._panels.get(self.name) is self:
                del self._panels[self.name]
        for part in self._parts:
            part.close()
        super().close()
        self._finalize()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def twin(self) -> Twin:
        """The panel in words."""
        parts = (self.picker, self.load_bar, self.chat, self.plot)
        twins = [part.twin() for part in parts]
        rows = (*twins[0].rows, *twins[1].rows, ("chat", f"{len(self.chat.conversation)} messages"), *twins[3].rows)
        return Twin(f"Workbench {self.name!r}", rows)


def _shut_down(session: Session | None, sampler: Sampler) -> None:
    sampler.stop()
    if session is not None:
        session.close()
