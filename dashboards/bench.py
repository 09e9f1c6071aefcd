"""Further models beside the loaded one, for comparisons: loaded when first asked for, one at a time, and kept."""

from __future__ import annotations

import asyncio

from dashboards.sources import SessionSource
from workbench.errors import ConfigError, ModelLoadError
from workbench.session import EngineFactory, LoadChoice, Session, SessionState, load_engine
from workbench.session_status import SessionStatus

__all__ = ["Bench"]

_MAX_MODELS = 4


class Bench:
    """Sessions by what they have loaded, apart from the one that everybody uses."""

    def __init__(self, factory: EngineFactory = load_engine) -> None:
        self._factory = factory
        self._sessions: dict[LoadChoice, Session] = {}
        self._loading = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """What is loaded for comparisons, in words."""
        return [_words(choice) for choice in self._sessions]

    async def source(self, model: str, precision: str | None, context_length: int | None) -> SessionSource:
        """A source of that model in that precision (None: the device's own choice), loaded if it has to be.

        Raises what loading raises, as a ModelLoadError, and ConfigError when there are too many.
        """
        choice = LoadChoice(model, precision=precision, context_length=context_length)
        async with self._loading:
            session = self._sessions.get(choice)
            if session is None or session.status.state is not SessionState.READY or not session.llm.is_loaded:
                session = await self._load(choice)
            return SessionSource(session)

    async def _load(self, choice: LoadChoice) -> Session:
        stale = self._sessions.pop(choice, None)
        if stale is not None:
            await asyncio.to_thread(stale.close)
        if len(self._sessions) >= _MAX_MODELS:
            raise ConfigError(f"{_MAX_MODELS} models are loaded for comparisons already: unload them first")
        session = Session(self._factory)
        session.load(choice)
        status: SessionStatus = await asyncio.to_thread(session.wait)
        if status.state is not SessionState.READY:
            cause = status.failure.cause if status.failure else "loading was cancelled"
            await asyncio.to_thread(session.close)
            raise ModelLoadError(f"{_words(choice)}: {cause}")
        self._sessions[choice] = session
        return session

    async def unload(self) -> None:
        """Unload what was loaded for comparisons."""
        async with self._loading:
            sessions, self._sessions = self._sessions, {}
            for session in sessions.values():
                await asyncio.to_thread(session.close)


def _words(choice: LoadChoice) -> str:
    return f"{choice.model} ({choice.precision or 'automatic'})"
