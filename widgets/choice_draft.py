"""The choice that pickers are about to make: one field changes at a time, held against a menu. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from widgets.choice_check import ChoiceCheck, allowed_option
from widgets.menu import AUTO, OUR_ENGINE, Menu
from widgets.model_facts import ModelFacts
from widgets.spread_choice import SIZE_FIELDS, SpreadChoice
from workbench.errors import ConfigError
from workbench.session import LoadChoice

__all__ = ["FIELDS", "ChoiceDraft"]

FIELDS = (
    *("model", "backend", "precision", "kv_dtype", "cpu_offload_layers", "engine_name", "split", *SIZE_FIELDS),
    *("gpus", "context_length", "draft_model"),
)


class ChoiceDraft:
    """What is chosen so far, under the pickers' names; AUTO stands for "choose for me".

    `saved_for(model)` gives the choice that is saved for a model, which is taken with it. `facts` are the model's, and
    unknown again whenever another is chosen. What is refused raises ConfigError, and nothing changes then.
    """

    def __init__(self, menu: Menu, saved_for: Callable[[str], LoadChoice | None]) -> None:
        self._menu = menu
        self._check = ChoiceCheck(menu)
        self._saved_for = saved_for
        self.model = ""
        self.backend = self.precision = self.kv_dtype = self.engine_name = AUTO
        self.gpus: list[int] = []
        self.context_length: int | None = None
        self.cpu_offload_layers: int | None = None
        self.draft_model: str | None = None
        self.spread: SpreadChoice | None = None
        self.facts = ModelFacts()
        self._refusal = ""
        # What came with the model, and goes with it.
        self._taken: LoadChoice | None = None

    @property
    def split(self) -> str:
        """The way to spread, by name."""
        return AUTO if self.spread is None else self.spread.strategy.value

    @property
    def choice(self) -> LoadChoice:
        """The same as a session loads it."""
        spread = self.spread
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
            self.draft_model,
        )

    @property
    def draft_reason(self) -> str | None:
        """Why no draft model goes with what is chosen; None where one does."""
        return self._menu.draft_reason(self.engine_name, is_spread=self.spread is not None)

    @property
    def problem(self) -> str:
        """What one should know of it, in words; "" for nothing. A model's facts come after it was chosen."""
        return self._refusal or self.facts.problem(self.choice)

    def as_fields(self) -> Mapping[str, Any]:
        """The values of all pickers, by name."""
        names = ("model", "backend", "precision", "kv_dtype", "engine_name", "split", "context_length")
        return {
            **{name: getattr(self, name) for name in (*names, "cpu_offload_layers")},
            "draft_model": self.draft_model or "",
            "gpus": list(self.gpus),
            "sizes": {} if self.spread is None else dict(self.spread.sizes),
        }

    def begin(self, choice: LoadChoice) -> None:
        """Take a choice; one that says no more than a model's name with what is saved for that model."""
        if choice == LoadChoice(choice.model):
            self._choose_model(choice.model)
        else:
            self.take(choice)

    def choose(self, field: str, value: Any) -> None:
        """Set one of `FIELDS`; what no longer goes with it is given up."""
        if field not in FIELDS:
            raise ConfigError(f"field {field!r} is not known; use one of: {', '.join(FIELDS)}")
        self._refusal = ""
        if field in SIZE_FIELDS:
            self._choose_size(field, value)
        else:
            getattr(self, f"_choose_{field}")(value)
        if self.draft_reason is not None:
            self.draft_model = None

    def take(self, choice: LoadChoice) -> None:
        """Set all fields."""
        self._check.choice(choice)
        if choice.model == self.model:
            self.facts.check(choice)
        self._refusal, self._taken = "", None
        self._set_model(choice.model)
        self.backend, self.precision = choice.backend or AUTO, choice.precision or AUTO
        self.context_length, self.gpus = choice.context_length, list(choice.gpus)
        self.kv_dtype, self.cpu_offload_layers = choice.kv_dtype or AUTO, choice.cpu_offload_layers
        self.draft_model = choice.draft_model
        # Our own by its name is the same as none.
        self.engine_name = AUTO if choice.engine_name in (None, OUR_ENGINE) else choice.engine_name
        self._set_spread(None if choice.parallel is None else SpreadChoice.of(choice.parallel))

    def _set_model(self, name: str) -> None:
        if name != self.model:
            self.model, self.facts = name, ModelFacts()

    def _choose_model(self, value: str) -> None:
        name = LoadChoice(str(value).strip()).model
        saved, before = self._saved_for(name), self._taken
        try:
            if saved is not None:
                self.take(saved)
                self._taken = saved
                return
        except ConfigError as error:
            # Saved on another machine, perhaps: a home folder may be shared.
            self._refusal = f"what is saved for {name} can't be used here: {error}"
        refusal = self._refusal
        if before is not None:
            self._give_up(before, name)
        self._set_model(name)
        # A draft model has the vocabulary of the one it guesses for.
        self.context_length = self.draft_model = None
        self._taken, self._refusal = None, refusal

    def _give_up(self, saved: LoadChoice, name: str) -> None:
        """Leave to the workbench what was saved for another model; what was chosen since stays where it can."""
        usual, choice = LoadChoice(name), self.choice
        kept = {
            field.name: getattr(choice, field.name)
            for field in fields(LoadChoice)
            if field.name != "model" and getattr(choice, field.name) != getattr(saved, field.name)
        }
        try:
            self.take(replace(usual, **kept))
        except ConfigError:
            self.take(usual)

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
        self._check.cpu_offload_layers(self.backend, value, is_spread=self.spread is not None)
        self.cpu_offload_layers = value

    def _choose_draft_model(self, value: str | None) -> None:
        name = str(value or "").strip() or None
        is_spread = self.spread is not None
        self._check.draft_model(self.engine_name, name, is_spread=is_spread)
        self.draft_model = name

    def _choose_engine_name(self, value: str) -> None:
        self.engine_name = allowed_option(self._menu.engines, "engine_name", value).value

    def _choose_context_length(self, value: int | None) -> None:
        length = LoadChoice(self.model, context_length=value).context_length
        self.facts.check_context(length)
        self.context_length = length

    def _choose_split(self, value: str) -> None:
        splits = self._menu.splits(self.backend, self.precision, self.kv_dtype, self.facts)
        name = allowed_option(splits, "split", value).value
        self._set_spread(None if name == AUTO else self._menu.first_spread(name, self.backend, self.facts))
        if name == AUTO:
            self.gpus = []

    def _choose_size(self, name: str, value: Any) -> None:
        if self.spread is None:
            raise ConfigError(f"{name}: choose a split first")
        spread = self.spread.resized(name, value)
        self._check.spread(self.backend, spread)
        self.facts.check_tensor_size(spread.sizes.get("tensor_size", 1))
        self._set_spread(spread)

    def _choose_gpus(self, value: Any) -> None:
        if self.spread is None:
            self.gpus = self._check.gpus(self.backend, value)
            return
        chosen = self._check.gpus(self.backend, value, self._menu.most_devices(self.backend))
        if len(chosen) < 2:
            raise ConfigError("a model is spread over two GPUs or more; choose one device to leave that")
        self._set_spread(self.spread.on(sorted(chosen)))

    def _set_spread(self, spread: SpreadChoice | None) -> None:
        self.spread = spread
        if spread is not None:
            used = spread.devices or range(spread.num_devices)
            self.gpus = [index for index in used if isinstance(index, int)] if self._menu.gpus(self.backend) else []

    def _leave_spread_if_refused(self) -> None:
        splits = self._menu.splits(self.backend, self.precision, self.kv_dtype)
        if any(option.value == self.split and option.reason is not None for option in splits):
            self._set_spread(None)


def _or_none(value: str) -> str | None:
    return None if value == AUTO else value
