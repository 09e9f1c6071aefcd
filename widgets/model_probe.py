"""What a loaded model tells of itself beyond counters: memory by owner, and the time to the last first token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from widgets.shared_session import wrong_source
from workbench.errors import EngineStoppedError

__all__ = ["ModelProbe", "check_source", "engine_of"]


class ModelProbe:
    """Probe: `owner_<name>_bytes` of the model's device, adding up to what is in use there, and `ttft_s`.

    `engine()` gives the loaded `LlamaGPU`, or None while there is none: then there is nothing to read.
    """

    def __init__(self, engine: Callable[[], Any | None]) -> None:
        self._engine = engine

    def read(self) -> Mapping[str, float]:
        """Bytes by owner now, seconds of the newest answer."""
        llm = self._engine()
        if llm is None or not hasattr(llm, "memory_owners"):
            return {}
        owners = llm.memory_owners().to_dict()
        numbers = {f"owner_{name}_bytes": float(count) for name, count in owners.items()}
        rows = llm.answers.rows
        if rows and rows[-1].ttft_s is not None:
            numbers["ttft_s"] = rows[-1].ttft_s
        return numbers


def check_source(source: object) -> None:
    """Raises ConfigError for what is neither an engine, a session nor None."""
    if source is not None and not hasattr(source, "stats"):
        raise wrong_source(source)


def engine_of(source: Any) -> Callable[[], Any | None]:
    """A function that gives the engine of a session (None while nothing is loaded), or the engine itself."""

    def engine() -> Any | None:
        try:
            return source.llm if hasattr(source, "is_settled") else source
        except EngineStoppedError:
            return None

    return engine
