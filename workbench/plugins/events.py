"""`PluginEventManager`: who wants to hear of what happens to plugins and engines. A listener that fails is logged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from workbench.errors import ConfigError

__all__ = ["EVENTS", "PluginEventManager"]

_log = logging.getLogger(__name__)

EVENTS = (
    *(f"{when}_{what}" for what in ("load", "unload", "reload") for when in ("pre", "post", "failed")),
    "engine_start",
    "engine_stop",
)


class PluginEventManager:
    """Functions by event.

    Attributes:
        hooks: event -> the functions registered for it. They get keywords: `name` and `path` before and after a load,
            `module` after it, `name` at the other events, `error` at the failed ones; `name` and `device` at
            engine_start and engine_stop.
    """

    def __init__(self) -> None:
        self.hooks: dict[str, list[Callable[..., Any]]] = {event: [] for event in EVENTS}
        self._lock = threading.Lock()

    def register_hook(self, event: str, func: Callable[..., Any]) -> Callable[[], None]:
        """Call `func` at every `event`; what is returned ends that. Raises ConfigError for an unknown event."""
        if event not in self.hooks:
            raise ConfigError(f"event {event!r} is not known; there are {', '.join(EVENTS)}")
        if not callable(func):
            raise ConfigError(f"event {event!r}: {func!r} cannot be called")
        with self._lock:
            self.hooks[event].append(func)

        def forget() -> None:
            with self._lock:
                if func in self.hooks[event]:
                    self.hooks[event].remove(func)

        return forget

    def dispatch(self, event: str, *args: Any, **kwargs: Any) -> None:
        """Call what is registered for `event`, in order. What a listener raises is logged and reaches nobody else."""
        if event not in self.hooks:
            raise ConfigError(f"event {event!r} is not known; there are {', '.join(EVENTS)}")
        with self._lock:
            listeners = tuple(self.hooks[event])
        for listener in listeners:
            try:
                listener(*args, **kwargs)
            except Exception:
                _log.exception("a listener of %s failed", event)
