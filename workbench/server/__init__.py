"""The OpenAI-compatible endpoint. `serve(llm)` is for notebooks; the `workbench serve` command has its own start.

Names resolve on first use: the settings alone, which the command line reads for its options, need no web framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.server.endpoint import Endpoint
    from workbench.server.settings import (
        ListenSettings,
        LoadSettings,
        QueueSettings,
        RateLimits,
        ServerSettings,
        WireLimits,
    )
    from workbench.server.sharing import serve

__all__ = [
    "Endpoint",
    "ListenSettings",
    "LoadSettings",
    "QueueSettings",
    "RateLimits",
    "ServerSettings",
    "WireLimits",
    "serve",
]

_HOMES = {"Endpoint": "workbench.server.endpoint", "serve": "workbench.server.sharing"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "workbench.server.settings")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
