"""Tells of replies that have ended: from the chats of a process to whoever notes them. Keeps none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.session import Session, SessionState

if TYPE_CHECKING:
    from workbench.conversation import Message

__all__ = ["ReplyNews", "hear_replies", "tell_of_reply"]

# Called with the message and the sampling settings it was made with.
ReplyNews = Callable[["Message", Mapping[str, Any]], None]

_lock = threading.Lock()
_listeners: list[tuple[Session, ReplyNews]] = []


def hear_replies(session: Session, callback: ReplyNews) -> Callable[[], None]:
    """Call `callback` after each reply of a chat on that session, or on the engine that it has loaded, on the reply's
    thread; the returned function ends that."""
    listener = (session, callback)
    with _lock:
        _listeners.append(listener)

    def forget() -> None:
        with _lock:
            if listener in _listeners:
                _listeners.remove(listener)

    return forget


def tell_of_reply(session: Session, message: Message, sampling: Mapping[str, Any]) -> None:
    """A chat on `session` says that a reply has ended."""
    engine = session.llm if session.status.state is SessionState.READY else None
    with _lock:
        listeners = tuple(_listeners)
    for heard, callback in listeners:
        # Widgets that were given an engine have a session each.
        if heard is session or (engine is not None and heard.is_sharing(engine)):
            callback(message, sampling)
