"""What can be chosen on this machine, and why the rest can't. Options are plain values; knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from workbench.backends import DTYPE_NAMES, Backend, BackendChoice, BackendStatus, detect, select_backend
from workbench.errors import ConfigError
from workbench.models import Catalogue, CatalogueEntry

__all__ = ["AUTO", "Menu", "Option"]

# The value of "choose for me" in every picker; no backend, precision or model may bear this name.
AUTO = "auto"

_GB = 1e9


@dataclass(frozen=True)
class Option:
    """One entry of a picker. `reason` says why it can't be chosen, None when it can; `note` explains it once chosen."""

    value: str
    label: str
    reason: str | None = None
    note: str = ""

    def as_dict(self) -> dict[str, str | None]:
        """The same as plain JSON values."""
        return asdict(self)


class Menu:
    """The options of a machine: models of the catalogue, backends, and the precisions of each backend."""

    def __init__(self, models: Sequence[Option], statuses: Sequence[BackendStatus], preferred: BackendChoice) -> None:
        self.models = tuple(models)
        self.statuses = tuple(statuses)
        self._preferred = preferred

    @classmethod
    def of_this_machine(cls) -> Menu:
        """Look at the catalogue and at the devices now. Loads torch; asks no network."""
        entries = Catalogue().list()
        return cls([_model_option(entry) for entry in entries], detect(), select_backend())

    @property
    def backends(self) -> tuple[Option, ...]:
        """ "Choose for me" first, then every backend, those that can't be used with their reason."""
        name, reason = self._preferred.backend.name, self._preferred.reason
        return (
            Option(AUTO, f"Automatic ({name})", note=reason),
            *(_backend_option(status) for status in self.statuses),
        )

    def precisions(self, backend: str) -> tuple[Option, ...]:
        """The precisions on `backend` (or on the one that AUTO stands for). Raises ConfigError for unknown names."""
        chosen = self._backend(backend)
        reason = chosen.unavailable_reason()
        if reason is not None:
            return (Option(AUTO, "Automatic", reason), *(Option(name, name, reason) for name in DTYPE_NAMES))
        default = chosen.default_dtype()
        return (
            Option(AUTO, f"Automatic ({default.dtype})", note=default.reason),
            *(Option(name, name, chosen.supports_dtype(name)) for name in DTYPE_NAMES),
        )

    def _backend(self, name: str) -> Backend:
        if name == AUTO:
            return self._preferred.backend
        backends = {status.backend.name: status.backend for status in self.statuses}
        if name not in backends:
            raise ConfigError(f"backend {name!r} is not known; use one of: {', '.join((AUTO, *backends))}")
        return backends[name]


def _backend_option(status: BackendStatus) -> Option:
    name = status.backend.name
    if not status.available:
        return Option(name, name, status.reason)
    device = status.devices[0]
    more = f" and {len(status.devices) - 1} more" if len(status.devices) > 1 else ""
    return Option(name, f"{name} ({device.name}, {device.total_bytes / _GB:.0f} GB{more})")


def _model_option(entry: CatalogueEntry) -> Option:
    facts = [entry.kind]
    if entry.size_bytes:
        facts.append(f"{entry.size_bytes / 1e6:.0f} MB")
    if not entry.ready:
        facts.append("fetched on first load")
    return Option(entry.name, f"{entry.name} ({', '.join(facts)})")
