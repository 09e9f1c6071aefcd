"""A named way to chat: sampling settings and a system prompt, as a checked value and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import ConfigError, RequestError

__all__ = ["Preset", "export_presets", "import_presets"]

FORMAT = "workbench.presets"
VERSION = 1
_MAX_NAME_CHARS = 60
# Belongs to a caller, not to a way of sampling.
_NOT_STORED = frozenset({"cache_salt"})


@dataclass(frozen=True)
class Preset:
    """`sampling` holds fields of SamplingParams by name (those left out keep their defaults). Raises ConfigError for a
    wrong name, RequestError for wrong settings."""

    name: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isprintable():
            raise ConfigError(f"name {self.name!r}: must be printable text")
        if not 0 < len(self.name.strip()) <= _MAX_NAME_CHARS:
            raise ConfigError(f"name {self.name!r}: must be 1 to {_MAX_NAME_CHARS} characters")
        if not isinstance(self.sampling, Mapping) or not (self.system is None or isinstance(self.system, str)):
            raise ConfigError(f"preset {self.name!r}: sampling must be an object and system a text or null")
        object.__setattr__(self, "name", self.name.strip())
        object.__setattr__(self, "sampling", MappingProxyType(_as_plain(_as_params(self.sampling))))

    @property
    def params(self) -> SamplingParams:
        """The settings as the engine takes them."""
        return _as_params(self.sampling)

    @classmethod
    def of(cls, name: str, params: SamplingParams, system: str | None = None) -> Preset:
        """A preset of settings that are in use."""
        return cls(name, _as_plain(params), system)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"name": self.name, "sampling": dict(self.sampling), "system": self.system, "note": self.note}


def export_presets(presets: Iterable[Preset]) -> str:
    """The presets as JSON text."""
    stored = [preset.as_dict() for preset in presets]
    return json.dumps({"format": FORMAT, "version": VERSION, "presets": stored}, ensure_ascii=False, indent=1)


def import_presets(text: str) -> list[Preset]:
    """The presets in a text of `export_presets`. Raises ConfigError that says what is wrong with it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"these are no presets: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"these are no presets: format must be {FORMAT!r}")
    if content.get("version") != VERSION:
        raise ConfigError(f"version {content.get('version')!r} is not known here: this reads version {VERSION}")
    stored = content.get("presets")
    if not isinstance(stored, list):
        raise ConfigError("presets must be a list")
    return [_preset(index, entry) for index, entry in enumerate(stored)]


def _preset(index: int, stored: Any) -> Preset:
    known = {f.name for f in fields(Preset)}
    if not isinstance(stored, dict) or set(stored) - known or "name" not in stored:
        raise ConfigError(f"presets[{index}] must be an object with name, and only {', '.join(sorted(known))}")
    try:
        return Preset(**stored)
    except (RequestError, ConfigError) as error:
        raise ConfigError(f"presets[{index}]: {error}") from None


def _as_params(sampling: Mapping[str, Any]) -> SamplingParams:
    options = dict(sampling)
    structure = options.get("structure")
    if isinstance(structure, Mapping):
        if set(structure) - {"kind", "text"} or structure.get("kind") not in set(StructureKind):
            raise RequestError(f"structure: must have a kind of {', '.join(StructureKind)} and a text")
        options["structure"] = StructureSpec(StructureKind(structure["kind"]), structure.get("text", ""))
    stored = _NOT_STORED & set(options)
    if stored:
        raise RequestError(f"{min(stored)} does not belong into a preset")
    return SamplingParams.from_options(options)


def _as_plain(params: SamplingParams) -> dict[str, Any]:
    """The fields that differ from the defaults, as JSON values."""
    defaults = SamplingParams()
    plain: dict[str, Any] = {}
    for one in fields(params):
        value = getattr(params, one.name)
        if value == getattr(defaults, one.name) or one.name in _NOT_STORED:
            continue
        if isinstance(value, StructureSpec):
            value = {"kind": value.kind.value, "text": value.text}
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = {str(key): number for key, number in value.items()}
        plain[one.name] = value
    return plain
