"""Pickers of model, backend and precision. Knows what can be chosen; loads nothing."""

from __future__ import annotations

import threading
from typing import Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.menu import AUTO, Menu, Option
from widgets.part import Part
from workbench.errors import ConfigError
from workbench.session import LoadChoice
from workbench.twin import Twin

__all__ = ["ModelPicker"]


class ModelPicker(Part, anywidget.AnyWidget):
    """Pickers for what to load; `choice` is what they say now.

    Options that can't be used here are shown with their reason and can't be chosen. `menu` is this machine's unless
    given. `model` takes any name that `LlamaGPU` does, listed or not.
    """

    _esm = module_text("model_picker")
    _css = style_text()

    models = traitlets.List().tag(sync=True)
    backends = traitlets.List().tag(sync=True)
    precisions = traitlets.List().tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    backend = traitlets.Unicode(AUTO).tag(sync=True)
    precision = traitlets.Unicode(AUTO).tag(sync=True)
    backend_hint = traitlets.Unicode().tag(sync=True)
    precision_hint = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)

    def __init__(self, choice: LoadChoice | None = None, *, menu: Menu | None = None) -> None:
        choice = choice or LoadChoice()
        self._menu = menu or Menu.of_this_machine()
        backend, precision = choice.backend or AUTO, choice.precision or AUTO
        # Refused here, before there is a widget that would have to be taken away again.
        _allowed(self._menu.backends, "backend", backend)
        _allowed(self._menu.precisions(backend), "precision", precision)
        self._context_length = choice.context_length
        # Callbacks may run on the kernel's main thread or on a subshell's.
        self._lock = threading.RLock()
        super().__init__(
            models=[option.as_dict() for option in self._menu.models],
            backends=[option.as_dict() for option in self._menu.backends],
            precisions=[option.as_dict() for option in self._menu.precisions(backend)],
            model=choice.model,
            backend=backend,
            precision=precision,
        )
        self._explain()
        self.on_msg(self._receive)

    @property
    def choice(self) -> LoadChoice:
        """What the pickers say now."""
        with self._lock:
            return LoadChoice(self.model, _or_none(self.backend), _or_none(self.precision), self._context_length)

    def choose(self, field: str, value: str) -> None:
        """Set `field` ("model", "backend" or "precision"), as a click would.

        Raises ConfigError for a value that is unknown or can't be used here; nothing changes then.
        """
        with self._lock, self.hold_sync():
            if field == "model":
                self.model = LoadChoice(value.strip()).model
            elif field == "backend":
                self._choose_backend(value)
            elif field == "precision":
                self.precision = _allowed(self._menu.precisions(self.backend), field, value).value
            else:
                raise ConfigError(f"field {field!r} is not known; use one of: model, backend, precision")
            self._explain()

    def _choose_backend(self, value: str) -> None:
        self.backend = _allowed(self._menu.backends, "backend", value).value
        options = self._menu.precisions(self.backend)
        self.precisions = [option.as_dict() for option in options]
        # A precision that the new backend lacks gives way to its default.
        if not any(option.value == self.precision and option.reason is None for option in options):
            self.precision = AUTO

    def _explain(self) -> None:
        self.problem = ""
        self.backend_hint = _hint(self._menu.backends, self.backend)
        self.precision_hint = _hint(self._menu.precisions(self.backend), self.precision)

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        """A choice made in the browser; one that is refused is said there and taken back."""
        if content.get("type") != "choose":
            return
        try:
            self.choose(str(content.get("field")), str(content.get("value")))
        except ConfigError as error:
            with self._lock:
                self.problem = str(error)
                self.send_state(["model", "backend", "precision"])

    def twin(self) -> Twin:
        """The choice in words."""
        rows = (("model", self.model), ("backend", self.backend), ("precision", self.precision))
        return Twin("ModelPicker", rows)


def _or_none(value: str) -> str | None:
    return None if value == AUTO else value


def _allowed(options: tuple[Option, ...], field: str, value: str) -> Option:
    for option in options:
        if option.value == value and option.reason is not None:
            raise ConfigError(f"{field} {value!r} can't be used here: {option.reason}")
        if option.value == value:
            return option
    known = ", ".join(option.value for option in options)
    raise ConfigError(f"{field} {value!r} is not known; use one of: {known}")


def _hint(options: tuple[Option, ...], value: str) -> str:
    """The note of the chosen option; without one, why the others can't be chosen."""
    note = next((option.note for option in options if option.value == value), "")
    return note or "; ".join(f"{option.value}: {option.reason}" for option in options if option.reason is not None)
