"""What a widget works on: a session as it is, or an engine from a cell put into one. Starts no thread."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.session import Session

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["as_session", "let_go", "require_session", "wrong_source"]

# Those made here, for one widget each.
_made: weakref.WeakSet[Session] = weakref.WeakSet()


def as_session(source: Session | LlamaGPU | None) -> Session:
    """The session itself, or a new one that shares the engine and leaves it loaded.

    Raises ConfigError for something else, EngineStoppedError for an engine that is unloaded.
    """
    if isinstance(source, Session):
        return source
    if not hasattr(source, "submit"):
        raise wrong_source(source)
    session = Session()
    session.adopt(source)
    _made.add(session)
    return session


def wrong_source(source: object) -> ConfigError:
    """What is said of something that no widget can work on."""
    given = "nothing was given" if source is None else f"{source!r:.60} is neither a LlamaGPU nor a Session"
    return ConfigError(f"{given}: give a loaded model, such as LlamaGPU('default'), or a Session")


def require_session(session: object) -> Session:
    """The session itself. Raises ConfigError for anything else."""
    if not isinstance(session, Session):
        raise ConfigError(f"{type(session).__name__} is no Session: make one, and `adopt` an engine that it shares")
    return session


def let_go(session: Session | None) -> None:
    """A widget is closed: a session that was made for it holds its engine no longer. Others are left alone."""
    if session is not None and session in _made:
        session.close()
