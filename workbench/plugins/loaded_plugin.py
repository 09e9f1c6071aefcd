"""A plugin in this process, and what makes something a plugin. Runs nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from workbench.errors import PluginError
from workbench.plugins.candidates import Candidate
from workbench.plugins.metadata import PluginMetadata, get_metadata, has_method
from workbench.plugins.modules import PluginModule

__all__ = ["LoadedPlugin", "PluginStatus", "validated_metadata"]


class PluginStatus(Enum):
    """Where a loaded plugin stands in its life."""

    INITIALIZING = "initializing"
    ACTIVE = "active"
    SHUT_DOWN = "shut down"


@dataclass
class LoadedPlugin:
    """A plugin whose code is here: where it came from, what it says of itself, and where it stands."""

    candidate: Candidate
    code: PluginModule
    metadata: PluginMetadata
    status: PluginStatus = PluginStatus.INITIALIZING

    @property
    def is_valid(self) -> bool:
        """Whether it still has what a plugin needs: `initialize`, and metadata that can be read."""
        try:
            validated_metadata(self.candidate, self.code.plugin)
        except PluginError:
            return False
        return True


def validated_metadata(candidate: Candidate, plugin: object) -> PluginMetadata:
    """The metadata of something that is a plugin. Raises PluginError with what it lacks."""
    if not has_method(plugin, "initialize"):
        raise PluginError(f"plugin {candidate.name}: {candidate.path} has no initialize(), so it is no plugin")
    try:
        metadata = PluginMetadata.parse(get_metadata(plugin))
    except TypeError as error:
        raise PluginError(f"plugin {candidate.name}: {error}") from error
    if metadata.name != candidate.name:
        raise PluginError(f"plugin {candidate.name}: it calls itself {metadata.name!r}")
    return metadata
