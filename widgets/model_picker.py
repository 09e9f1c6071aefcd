"""What to load: model, backend, GPUs, weights, context. Knows what can be chosen; loads nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from widgets.choice_check import hint_of, note_of, require_choice
from widgets.choice_draft import ChoiceDraft
from widgets.facts_finder import FactsFinder
from widgets.front_end import module_text, style_text
from widgets.hub_finder import HubFinder
from widgets.latest_job import LatestJob
from widgets.menu import AUTO, Menu
from widgets.model_facts import ModelFacts
from widgets.part import Part
from widgets.stand_in_choice import stand_in_choice
from workbench.errors import ConfigError
from workbench.model_defaults import ModelDefaults
from workbench.models.hub_search import HubModel, search_hub
from workbench.session import LoadChoice
from workbench.twin import Twin

__all__ = ["ModelPicker"]


class ModelPicker(Part, anywidget.AnyWidget):
    """Pickers for what to load; `choice` is what they say now, and `on_change(choice)` is called after each change.

    Options that can't be used here are shown with their reason and can't be chosen. `menu` is this machine's unless
    given. `model` takes any name that `LlamaGPU` does, listed or not. `defaults` are the choices saved per model: one
    is taken when its model is chosen, or given as a `choice` of its name alone. `search(text)` asks the hub.
    """

    _esm = module_text("model_picker")
    _css = style_text()

    models = traitlets.List().tag(sync=True)
    backends = traitlets.List().tag(sync=True)
    precisions = traitlets.List().tag(sync=True)
    kv_dtypes = traitlets.List().tag(sync=True)
    splits = traitlets.List().tag(sync=True)
    gpu_options = traitlets.List().tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    backend = traitlets.Unicode(AUTO).tag(sync=True)
    precision = traitlets.Unicode(AUTO).tag(sync=True)
    kv_dtype = traitlets.Unicode(AUTO).tag(sync=True)
    split = traitlets.Unicode(AUTO).tag(sync=True)
    # Name of a size -> the size, for those that the split has.
    sizes = traitlets.Dict().tag(sync=True)
    gpus = traitlets.List(traitlets.Int()).tag(sync=True)
    context_length = traitlets.Int(None, allow_none=True).tag(sync=True)
    max_context = traitlets.Int(None, allow_none=True).tag(sync=True)
    cpu_offload_layers = traitlets.Int(None, allow_none=True).tag(sync=True)
    draft_model = traitlets.Unicode().tag(sync=True)
    # Why there can be none; "" where there can.
    draft_reason = traitlets.Unicode().tag(sync=True)
    engines = traitlets.List().tag(sync=True)
    engine_name = traitlets.Unicode(AUTO).tag(sync=True)
    backend_hint = traitlets.Unicode().tag(sync=True)
    precision_hint = traitlets.Unicode().tag(sync=True)
    split_hint = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    saved = traitlets.Bool(False).tag(sync=True)
    found = traitlets.List().tag(sync=True)
    search_note = traitlets.Unicode().tag(sync=True)

    # Until there is something to drop.
    _jobs: tuple[LatestJob, ...] = ()

    def __init__(
        self,
        choice: LoadChoice | None = None,
        *,
        menu: Menu | None = None,
        on_change: Callable[[LoadChoice], None] | None = None,
        defaults: ModelDefaults | None = None,
        search: Callable[[str], list[HubModel]] = search_hub,
    ) -> None:
        choice = LoadChoice() if choice is None else choice
        require_choice(choice)
        self._menu = menu or Menu.of_this_machine()
        self._defaults = defaults or ModelDefaults()
        self._on_change = on_change or (lambda choice: None)
        # A choice that is refused is so here, before there is a widget that would have to be taken away again.
        self._draft = ChoiceDraft(self._menu, self._saved_for)
        self._draft.begin(stand_in_choice(choice))
        # Callbacks may run on the kernel's main thread or on a subshell's.
        self._lock = threading.RLock()
        self._facts_finder = FactsFinder(self._menu.facts, self._show_facts)
        self._hub_finder = HubFinder(search, self._show_found)
        self._jobs = (self._facts_finder.job, self._hub_finder.job)
        super().__init__(models=[option.as_dict() for option in self._menu.models])
        self._show()
        self._facts_finder.find(self._draft.model)
        self.on_msg(self._receive)

    @property
    def choice(self) -> LoadChoice:
        """What the pickers say now."""
        with self._lock:
            return self._draft.choice

    def choose(self, field: str, value: Any) -> None:
        """Set one field, as a click would: "model", "backend", "precision", "gpus", "context_length", "kv_dtype",
        "cpu_offload_layers", "draft_model", "engine_name", "split" ("tensor", "pipeline", "data", "hybrid" or "auto")
        and its "tensor_size", "pipeline_size", "data_size".

        Raises ConfigError for a value that is unknown or can't be used here; nothing changes then.
        """
        self._change(lambda draft: draft.choose(field, value))

    def apply(self, choice: LoadChoice) -> None:
        """Set all fields. Raises ConfigError for a choice that can't be used here; nothing changes then."""
        self._change(lambda draft: draft.take(choice))

    def save_default(self) -> None:
        """Keep the choice for this model: it is taken whenever the model is chosen."""
        self._defaults.save(self.choice)
        self.saved = True

    def forget_default(self) -> None:
        """Forget what was saved for this model."""
        self._defaults.remove(self.model)
        self.saved = False

    def find(self, text: str) -> None:
        """Search the hub in the background; the models found, or why not, are shown."""
        self.search_note = "Searching\u2026"
        self._hub_finder.find(text)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for what is looked up in the background; True when nothing is."""
        return all([job.wait(timeout_s) for job in self._jobs])

    def close(self) -> None:
        """Drop what is looked up, and take the widget away."""
        for job in self._jobs:
            job.close()
        super().close()

    def _change(self, change: Callable[[ChoiceDraft], None]) -> None:
        with self._lock, self.hold_sync():
            change(self._draft)
            self._show()
            if self._draft.model != self._facts_finder.model:
                self._facts_finder.find(self._draft.model)
            choice = self._draft.choice
        self._on_change(choice)

    def _show(self) -> None:
        """Put the draft on the page, with everything that follows from it."""
        draft = self._draft
        lists = self._menu.lists(draft.backend, draft.precision, draft.kv_dtype, draft.facts)
        shown = {
            **{name: [option.as_dict() for option in options] for name, options in lists.items()},
            **draft.as_fields(),
            "max_context": draft.facts.max_context,
            "problem": draft.problem,
            "draft_reason": draft.draft_reason or "",
            "backend_hint": hint_of(lists["backends"], draft.backend),
            "precision_hint": note_of(lists["precisions"], draft.precision),
            "split_hint": note_of(lists["splits"], draft.split),
            "saved": self._saved_for(draft.model) is not None,
        }
        with self.hold_sync():
            for name, value in shown.items():
                setattr(self, name, value)

    def _saved_for(self, model: str) -> LoadChoice | None:
        try:
            return self._defaults.get(model)
        except ConfigError:
            # A damaged file must not keep the panel shut; saving says what is wrong with it.
            return None

    def _show_facts(self, model: str, facts: ModelFacts) -> None:
        """They come late: what was chosen meanwhile stays, with a word where the model does not allow it."""
        with self._lock:
            if self._draft.model == model:
                problem, self._draft.facts = self.problem, facts
                self._show()
                self.problem = self.problem or problem

    def _show_found(self, found: list[dict[str, Any]], note: str) -> None:
        with self.hold_sync():
            self.found, self.search_note = found, note

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        """A choice made in the browser; one that is refused is said there and taken back."""
        actions: dict[str, Callable[[], object]] = {
            "choose": lambda: self.choose(str(content.get("field")), content.get("value")),
            "find": lambda: self.find(str(content.get("text", ""))),
            "save": self.save_default,
            "forget": self.forget_default,
        }
        try:
            actions.get(str(content.get("type")), lambda: None)()
        except (ConfigError, TypeError, ValueError) as error:
            with self._lock:
                self.problem = str(error)
                self.send_state(list(self._draft.as_fields()))

    def twin(self) -> Twin:
        """The choice in words."""
        rows = [("model", self.model), ("backend", self.backend), ("precision", self.precision)]
        if self.gpus:
            rows.append(("GPUs", ", ".join(map(str, self.gpus))))
        if self.sizes:
            sizes = ", ".join(f"{name.removesuffix('_size')} {size}" for name, size in self.sizes.items())
            rows.append(("spread", f"{self.split} ({sizes})"))
        if self.engine_name != AUTO:
            rows.append(("engine", self.engine_name))
        if self.cpu_offload_layers is not None:
            rows.append(("in the host's memory", f"{self.cpu_offload_layers} layers"))
        if self.draft_model:
            rows.append(("draft model", self.draft_model))
        if self.context_length is not None:
            rows.append(("context", f"{self.context_length} tokens"))
        return Twin("ModelPicker", tuple(rows))
