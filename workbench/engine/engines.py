"""The engines by name: our own, and those that plugins bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.plugins import PluginManager, hookimpl

if TYPE_CHECKING:
    from workbench.engine.build import StartedEngine

__all__ = ["find_engine"]


def find_engine(plugins: PluginManager, name: str) -> Callable[..., StartedEngine]:
    """What starts the engine of that name: `(loaded, backend, device_index, config, **options) -> StartedEngine`.

    Raises ConfigError that lists the names.
    """
    return plugins.find("engines", name, _BUILT_IN).value


def _start_paged(*parts: Any, **options: Any) -> StartedEngine:
    # The engine itself loads torch.
    from workbench.engine.build import start_engine

    return start_engine(*parts, **options)


class _BuiltIn:
    @hookimpl
    def register_engines(self, register: Callable[..., None]) -> None:
        register("paged", _start_paged, "continuous batching over a paged cache")


_BUILT_IN = _BuiltIn()
