"""What to load: model, backend, GPUs, weights, context. Knows what can be chosen; loads nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from widgets.choice_check import ChoiceCheck, allowed_option, hint_of, note_of
from widgets.front_end import module_text, style_text
from widgets.hub_finder import HubFinder
from widgets.latest_job import LatestJob
from widgets.menu import AUTO, OUR_ENGINE, Menu
from widgets.part import Part
from widgets.spread_choice import SIZE_FIELDS, SpreadChoice
from workbench.errors import ConfigError
from workbench.model_defaults import ModelDefaults
from workbench.models.hub_search import HubModel, search_hub
from workbench.parallel import ParallelismStrategy
from workbench.session import LoadChoice
from workbench.twin import Twin

__all__ = ["ModelPicker"]

_FIELDS = (
    *("model", "backend", "precision", "kv_dtype", "cpu_offload_layers", "engine_name", "split", *SIZE_FIELDS),
    *("gpus", "context_length"),
)
# What a spread over the CPU begins with.
_FEW_PROCESSES = 2


class ModelPicker(Part, anywidget.AnyWidget):
    """Pickers for what to load; `choice` is what they say now, and `on_change(choice)` is called after each change.

    Options that can't be used here are shown with their reason and can't be chosen. `menu` is this machine's unless
    given. `model` takes any name that `LlamaGPU` does, listed or not. `defaults` are the choices saved per model: one
    is taken when its model is chosen. `search(text)` asks the hub.
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
    engines = traitlets.List().tag(sync=True)
    engine_name = traitlets.Unicode(AUTO).tag(sync=True)
    backend_hint = traitlets.Unicode().tag(sync=True)
    precision_hint = traitlets.Unicode().tag(sync=True)
    split_hint = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    saved = traitlets.Bool(False).tag(sync=True)
    found = traitlets.List().tag(sync=True)
    search_note = traitlets.Unicode().tag(sync=True)

    _jobs: tuple[LatestJob, ...] = ()
    _spread: SpreadChoice | None = None

    def __init__(
        self,
        choice: LoadChoice | None = None,
        *,
        menu: Menu | None = None,
        on_change: Callable[[LoadChoice], None] | None = None,
        defaults: ModelDefaults | None = None,
        search: Callable[[str], list[HubModel]] = search_hub,
    ) -> None:
        self._menu = menu or Menu.of_this_machine()
        self._check = ChoiceCheck(self._menu)
        self._defaults = defaults or ModelDefaults()
        self._on_change = on_change or (lambda choice: None)
        choice = choice or self._saved_for("default") or LoadChoice()
        # Refused here, before there is a widget that would have to be taken away again.
        self._check.choice(choice)
        # Callbacks may run on the kernel's main thread or on a subshell's.
        self._lock = threading.RLock()
        self._facts_job, self._finder = LatestJob("workbench-model-facts"), HubFinder(search, self._show_found)
        self._jobs = (self._facts_job, self._finder.job)
        super().__init__(models=[option.as_dict() for option in self._menu.models])
        self._take(choice)
        self.on_msg(self._receive)

    @property
    def choice(self) -> LoadChoice:
        """What the pickers say now."""
        with self._lock:
            spread = self._spread
            return LoadChoice(
                self.model,
                # The CPU runs several processes only where it is named.
                _or_none(self.backend) if spread is None else self._menu.settled_backend(self.backend),
                _or_none(self.precision),
                self.context_length,
                tuple(self.gpus) if spread is None else (),
                _or_none(self.kv_dtype),
                self.cpu_offload_layers,
                _or_none(self.engine_name),
                None if spread is None else spread.config(),
            )

    def choose(self, field: str, value: Any) -> None:
        """Set one field, as a click would: "model", "backend", "precision", "gpus", "context_length", "kv_dtype",
        "cpu_offload_layers", "engine_name", "split" ("tensor", "pipeline", "data", "hybrid" or "auto") and its
        "tensor_size", "pipeline_size", "data_size".

        Raises ConfigError for a value that is unknown or can't be used here; nothing changes then.
        """
        if field not in _FIELDS:
            raise ConfigError(f"field {field!r} is not known; use one of: {', '.join(_FIELDS)}")
        with self._lock, self.hold_sync():
            if field in SIZE_FIELDS:
                self._choose_size(field, value)
            else:
                getattr(self, f"_choose_{field}")(value)
            self._explain()
        self._on_change(self.choice)

    def apply(self, choice: LoadChoice) -> None:
        """Set all fields. Raises ConfigError for a choice that can't be used here; nothing changes then."""
        self._check.choice(choice)
        self._take(choice)
        self._on_change(self.choice)

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
        self._finder.find(text)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for what is looked up in the background; True when nothing is."""
        return all([job.wait(timeout_s) for job in self._jobs])

    def close(self) -> None:
        """Drop what is looked up, and take the widget away."""
        for job in self._jobs:
            job.close()
        super().close()

    def _take(self, choice: LoadChoice) -> None:
        backend = choice.backend or AUTO
        with self._lock, self.hold_sync():
            is_new_model = choice.model != self.model
            self.model, self.backend, self.precision = choice.model, backend, choice.precision or AUTO
            self.context_length, self.gpus = choice.context_length, list(choice.gpus)
            self.kv_dtype, self.cpu_offload_layers = choice.kv_dtype or AUTO, choice.cpu_offload_layers
            # Our own by its name is the same as none.
            self.engine_name = AUTO if choice.engine_name in (None, OUR_ENGINE) else choice.engine_name
            self._set_spread(None if choice.parallel is None else SpreadChoice.of(choice.parallel))
            self._explain()
        if is_new_model:
            self._look_up_model(choice.model)

    def _choose_model(self, value: str) -> None:
        name = LoadChoice(str(value).strip()).model
        self.model, self.context_length = name, None
        saved = self._saved_for(name)
        if saved is not None:
            self._check.choice(saved)
            self._take(saved)
        self._look_up_model(name)

    def _choose_backend(self, value: str) -> None:
        self.backend = allowed_option(self._menu.backends, "backend", value).value
        self.gpus, self.kv_dtype, self.cpu_offload_layers = [], AUTO, None
        self._set_spread(None)
        # A precision that the new backend lacks gives way to its default.
        options = self._menu.precisions(self.backend)
        if not any(option.value == self.precision and option.reason is None for option in options):
            self.precision = AUTO

    def _choose_precision(self, value: str) -> None:
        self.precision = allowed_option(self._menu.precisions(self.backend), "precision", value).value
        self.kv_dtype = AUTO
        self._leave_spread_if_refused()

    def _choose_kv_dtype(self, value: str) -> None:
        self.kv_dtype = allowed_option(self._menu.kv_dtypes(self.backend, self.precision), "kv_dtype", value).value
        self._leave_spread_if_refused()

    def _choose_cpu_offload_layers(self, value: int | None) -> None:
        self._check.cpu_offload_layers(self.backend, value, is_spread=self._spread is not None)
        self.cpu_offload_layers = value

    def _choose_engine_name(self, value: str) -> None:
        self.engine_name = allowed_option(self._menu.engines, "engine_name", value).value

    def _choose_split(self, value: str) -> None:
        splits = self._menu.splits(self.backend, self.precision, self.kv_dtype)
        name = allowed_option(splits, "split", value).value
        if name == AUTO:
            self._set_spread(None)
            self.gpus = []
        else:
            count = len(self._menu.gpus(self.backend)) or _FEW_PROCESSES
            self._set_spread(SpreadChoice.first(ParallelismStrategy(name), count))

    def _choose_size(self, name: str, value: Any) -> None:
        if self._spread is None:
            raise ConfigError(f"{name}: choose a split first")
        spread = self._spread.resized(name, value)
        self._check.spread(self.backend, spread)
        self._set_spread(spread)

    def _choose_gpus(self, value: Any) -> None:
        if self._spread is None:
            self.gpus = self._check.gpus(self.backend, value)
            return
        chosen = self._check.gpus(self.backend, value, self._menu.most_devices(self.backend))
        if len(chosen) < 2:
            raise ConfigError("a model is spread over two GPUs or more; choose one device to leave that")
        self._set_spread(self._spread.on(sorted(chosen)))

    def _set_spread(self, spread: SpreadChoice | None) -> None:
        self._spread = spread
        self.split = AUTO if spread is None else spread.strategy.value
        self.sizes = {} if spread is None else dict(spread.sizes)
        if spread is not None:
            used = spread.devices or range(spread.num_devices)
            self.gpus = [index for index in used if isinstance(index, int)] if self._menu.gpus(self.backend) else []

    def _leave_spread_if_refused(self) -> None:
        splits = self._menu.splits(self.backend, self.precision, self.kv_dtype)
        if any(option.value == self.split and option.reason is not None for option in splits):
            self._set_spread(None)

    def _choose_context_length(self, value: int | None) -> None:
        length = LoadChoice(self.model, context_length=value).context_length
        if length is not None and self.max_context is not None and length > self.max_context:
            raise ConfigError(f"context_length {length}: the model was trained for at most {self.max_context} tokens")
        self.context_length = length

    def _explain(self) -> None:
        """Everything that follows from the choice."""
        menu = self._menu
        lists = {
            "backends": menu.backends,
            "precisions": menu.precisions(self.backend),
            "kv_dtypes": menu.kv_dtypes(self.backend, self.precision),
            "engines": menu.engines,
            "splits": menu.splits(self.backend, self.precision, self.kv_dtype),
            "gpu_options": menu.gpus(self.backend),
        }
        for name, options in lists.items():
            setattr(self, name, [option.as_dict() for option in options])
        self.problem = ""
        self.backend_hint = hint_of(lists["backends"], self.backend)
        self.precision_hint = note_of(lists["precisions"], self.precision)
        self.split_hint = note_of(lists["splits"], self.split)
        self.saved = self._saved_for(self.model) is not None

    def _saved_for(self, model: str) -> LoadChoice | None:
        try:
            return self._defaults.get(model)
        except ConfigError:
            # A damaged file must not keep the panel shut; saving says what is wrong with it.
            return None

    def _look_up_model(self, model: str) -> None:
        self.max_context = None

        def look() -> None:
            limit = self._menu.max_context(model)
            with self._lock:
                if self.model == model:
                    self.max_context = limit

        self._facts_job.ask(look)

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
                self.send_state(list(_FIELDS))

    def twin(self) -> Twin:
        """The choice in words."""
        rows = [("model", self.model), ("backend", self.backend), ("precision", self.precision)]
        if self.gpus:
            rows.append(("GPUs", ", ".join(map(str, self.gpus))))
        if self._spread is not None:
            sizes = ", ".join(f"{name.removesuffix('_size')} {size}" for name, size in self.sizes.items())
            rows.append(("spread", f"{self.split} ({sizes})"))
        if self.engine_name != AUTO:
            rows.append(("engine", self.engine_name))
        if self.cpu_offload_layers is not None:
            rows.append(("in the host's memory", f"{self.cpu_offload_layers} layers"))
        if self.context_length is not None:
            rows.append(("context", f"{self.context_length} tokens"))
        return Twin("ModelPicker", tuple(rows))


def _or_none(value: str) -> str | None:
    return None if value == AUTO else value
