"""What a widget works on: a session as it is, or an engine from a cell put into one. Starts no thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.session import Session

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["as_session"]


def as_session(source: Session | LlamaGPU) -> Session:
    """The session itself, or a new one that shares the engine and leaves it loaded.

    Raises ConfigError for something else, EngineStoppedError for an engine that is unloaded.
    """
    if isinstance(source, Session):
        return source
    if not hasattr(source, "submit"):
        raise ConfigError(f"{type(source).__name__} is neither a LlamaGPU nor a Session")
    session = Session()
    session.adopt(source)
    return session
