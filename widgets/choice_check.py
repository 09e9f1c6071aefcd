"""Whether a choice can be used on this machine. Pure over a menu's options; knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from widgets.menu import AUTO, ONE_GPU_REASON, OUR_ENGINE, Menu, Option
from widgets.spread_choice import SpreadChoice
from workbench.errors import ConfigError
from workbench.session import LoadChoice

__all__ = ["ChoiceCheck", "allowed_option", "hint_of", "note_of", "require_choice"]


class ChoiceCheck:
    """Holds choices against a menu. Everything raises ConfigError, with the reason, for what can't be used here."""

    def __init__(self, menu: Menu) -> None:
        self._menu = menu

    def choice(self, choice: LoadChoice) -> None:
        """A whole choice."""
        menu, backend = self._menu, choice.backend or AUTO
        precision, kv_dtype = choice.precision or AUTO, choice.kv_dtype or AUTO
        allowed_option(menu.backends, "backend", backend)
        allowed_option(menu.precisions(backend), "precision", precision)
        allowed_option(menu.kv_dtypes(backend, precision), "kv_dtype", kv_dtype)
        engine = AUTO if choice.engine_name in (None, OUR_ENGINE) else choice.engine_name
        allowed_option(menu.engines, "engine_name", engine)
        self.cpu_offload_layers(backend, choice.cpu_offload_layers, is_spread=choice.parallel is not None)
        self.draft_model(engine, choice.draft_model, is_spread=choice.parallel is not None)
        if choice.parallel is None:
            self.gpus(backend, choice.gpus)
            return
        spread = SpreadChoice.of(choice.parallel)
        allowed_option(menu.splits(backend, precision, kv_dtype), "split", spread.strategy.value)
        self.spread(backend, spread)

    def cpu_offload_layers(self, backend: str, count: int | None, *, is_spread: bool) -> None:
        """Layers that stay in the host's memory, beside one GPU."""
        if count is None:
            return
        if type(count) is not int or count < 1:
            raise ConfigError(f"cpu_offload_layers {count!r}: must be a whole number of at least 1, or empty")
        if not self._menu.gpus(backend):
            raise ConfigError("cpu_offload_layers: on a CPU every layer is in the host's memory")
        if is_spread:
            raise ConfigError("cpu_offload_layers: goes with one GPU; choose one device first")

    def draft_model(self, engine: str, name: str | None, *, is_spread: bool) -> None:
        """A smaller model that guesses ahead."""
        reason = None if name is None else self._menu.draft_reason(engine, is_spread=is_spread)
        if reason is not None:
            raise ConfigError(f"draft_model {name!r} can't be used here: {reason}")

    def gpus(self, backend: str, indexes: Sequence[Any], most: int = 1) -> list[int]:
        """GPUs of a backend by index, `most` of them at most; gives them as numbers."""
        if len(indexes) > most:
            raise ConfigError(f"gpus {list(indexes)!r}: {ONE_GPU_REASON}")
        options = self._menu.gpus(backend)
        return [int(allowed_option(options, "gpus", str(index)).value) for index in indexes]

    def spread(self, backend: str, spread: SpreadChoice) -> None:
        """A spread over several GPUs, or over processes where the backend has none."""
        most = self._menu.most_devices(backend)
        has_gpus = bool(self._menu.gpus(backend))
        if spread.num_devices > most:
            kind = "GPUs are there" if has_gpus else "processes are the most here"
            raise ConfigError(f"the sizes multiply to {spread.num_devices}; {most} {kind}")
        if has_gpus:
            self.gpus(backend, spread.devices, most)


def require_choice(choice: object) -> None:
    """Raises ConfigError for what is no LoadChoice, such as a model's name alone."""
    if not isinstance(choice, LoadChoice):
        raise ConfigError(f"choice={choice!r}: must be a LoadChoice, such as LoadChoice('default')")


def allowed_option(options: tuple[Option, ...], field: str, value: str) -> Option:
    """The option of that value. Raises ConfigError for one that is unknown or can't be used."""
    for option in options:
        if option.value == value and option.reason is not None:
            raise ConfigError(f"{field} {value!r} can't be used here: {option.reason}")
        if option.value == value:
            return option
    known = ", ".join(option.value for option in options) or "nothing on this backend"
    raise ConfigError(f"{field} {value!r} is not known; use one of: {known}")


def note_of(options: tuple[Option, ...], value: str) -> str:
    """What the option of that value says of itself; "" where it says nothing."""
    return next((option.note for option in options if option.value == value), "")


def hint_of(options: tuple[Option, ...], value: str) -> str:
    """The note of the chosen option; without one, why the others can't be chosen."""
    refused = "; ".join(f"{option.value}: {option.reason}" for option in options if option.reason is not None)
    return note_of(options, value) or refused
