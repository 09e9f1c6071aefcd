"""The endpoints of this process by name, so that running a notebook cell again never leaves a second server behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.server.endpoint import Endpoint

__all__ = ["PROCESS_ENDPOINTS", "Endpoints"]


@dataclass
class _Entry:
    endpoint: Endpoint
    made_from: tuple[Any, ...]


class Endpoints:
    """At most one running endpoint per name. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Endpoint | None:
        """The running endpoint of that name."""
        entry = self._entries.get(name)
        return entry.endpoint if entry is not None and entry.endpoint.is_running else None

    def get_serving(self, name: str, llm: Any) -> Endpoint | None:
        """The running endpoint of that name, if it was made for `llm`."""
        entry = self._entries.get(name)
        return self.get(name) if entry is not None and entry.made_from[:1] == (llm,) else None

    def serve(self, name: str, made_from: tuple[Any, ...], make: Callable[[Endpoint | None], Endpoint]) -> Endpoint:
        """The endpoint of that name: the running one if it was made from the same, else a new one in its place.

        `make` is given the one that was running until now, which has ended by then.
        """
        with self._lock:
            before = self.get(name)
            if before is not None and _same(self._entries[name].made_from, made_from):
                return before
            if before is not None:
                before.stop()
            endpoint = make(before)
            endpoint.start()
            self._entries[name] = _Entry(endpoint, made_from)
            return endpoint

    def running(self) -> dict[str, Endpoint]:
        """The running endpoints by name."""
        return {name: entry.endpoint for name, entry in self._entries.items() if entry.endpoint.is_running}

    def stop_all(self) -> None:
        """Stop every endpoint."""
        with self._lock:
            for entry in self._entries.values():
                entry.endpoint.stop()
            self._entries.clear()


def _same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    # A model is the same only if it is that very one; settings are values.
    return len(before) == len(now) and all(a is b or a == b for a, b in zip(before, now, strict=True))


# A notebook's cells share nothing but the process, so this is the one place that remembers for all of it.
PROCESS_ENDPOINTS = Endpoints()
