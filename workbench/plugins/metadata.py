"""What a plugin says of itself: name, version, what it needs and what it may do. Values only; runs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from workbench.errors import PluginError
from workbench.plugins.points import PERMISSIONS

__all__ = ["PluginMetadata", "check_plugin_name", "get_metadata", "has_method"]

# It becomes a folder's and a package's name: nothing in it may mean something to a path.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_MAX_TEXT_CHARS = 2000


def check_plugin_name(name: object) -> str:
    """The name itself. Raises PluginError for one that is not small letters, digits and inner dashes, at most 64."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name)[:80]
        raise PluginError(f"plugin name {shown}: must be 1 to 64 small letters, digits and dashes, as in 'my-plugin'")
    return name


@dataclass(frozen=True)
class PluginMetadata:
    """The documented keys and ours.

    Attributes:
        name: how it is called everywhere; small letters, digits and dashes.
        version: as PEP 440 has it, like "1.2.0".
        description, author: for people.
        entry_point: "module" or "module:attribute" where the plugin is; empty for a plugin that is that module itself.
        dependencies: requirements, like "numpy>=2", that must be installed already.
        requires_workbench: versions of the workbench it works with, like ">=0.1,<2"; empty takes any.
        permissions: what it may register or do, names of `PERMISSIONS`.
    """

    name: str
    version: str
    description: str = ""
    author: str = ""
    entry_point: str = ""
    dependencies: tuple[str, ...] = ()
    requires_workbench: str = ""
    permissions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion, Version

        check_plugin_name(self.name)
        for field in ("version", "description", "author", "entry_point", "requires_workbench"):
            value = getattr(self, field)
            if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS:
                raise PluginError(f"plugin {self.name}: {field} must be a text of at most {_MAX_TEXT_CHARS} characters")
        for field in ("dependencies", "permissions"):
            object.__setattr__(self, field, _texts(self.name, field, getattr(self, field)))
        try:
            Version(self.version)
            SpecifierSet(self.requires_workbench)
            for text in self.dependencies:
                Requirement(text)
        except (InvalidVersion, InvalidSpecifier, InvalidRequirement) as error:
            raise PluginError(f"plugin {self.name}: {error}") from error
        unknown = sorted(set(self.permissions) - set(PERMISSIONS))
        if unknown:
            raise PluginError(
                f"plugin {self.name}: permission {unknown[0]!r} is not known; there are {', '.join(PERMISSIONS)}"
            )

    @classmethod
    def parse(cls, value: object) -> PluginMetadata:
        """From a mapping with these keys. Raises PluginError for what is missing, wrong or unknown."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not value:
            raise PluginError("a plugin's metadata must be a mapping with at least 'name' and 'version'")
        names = {field.name for field in fields(cls)}
        for key in value:
            if key not in names:
                raise PluginError(f"metadata: {key!r} is not known; there are {', '.join(sorted(names))}")
        for key in ("name", "version"):
            if key not in value:
                raise PluginError(f"metadata: {key!r} is missing")
        return cls(**value)

    @classmethod
    def read(cls, path: Path | str) -> PluginMetadata:
        """From the plugin.json beside a plugin's code. Raises PluginError."""
        try:
            return cls.parse(json.loads(Path(path).read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise PluginError(f"{path} holds no metadata: {error}") from error

    def as_dict(self) -> dict[str, object]:
        """The same as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def get_metadata(plugin: object) -> dict[str, object]:
    """The metadata of a plugin object or module as a dict; {} where it has none."""
    found = getattr(plugin, "metadata", None)
    inner = getattr(plugin, "plugin", None)
    if found is None and has_method(inner, "initialize"):
        found = getattr(inner, "metadata", None)
    if isinstance(found, PluginMetadata):
        return found.as_dict()
    return dict(found) if isinstance(found, Mapping) else {}


def has_method(obj: object, name: str) -> bool:
    """Whether `obj` has something callable of that name."""
    return callable(getattr(obj, name, None))


def _texts(plugin: str, field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise PluginError(f"plugin {plugin}: {field} must be a list of texts")
    return tuple(value)
