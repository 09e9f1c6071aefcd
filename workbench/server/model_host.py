"""The one model behind the endpoint: which it is, and how it is changed. Loading itself is the session's work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.engine import EngineStats
from workbench.errors import EngineStoppedError
from workbench.parallel import GPUConfig
from workbench.progress import Progress
from workbench.server.errors import ApiError, load_error
from workbench.server.served_model import ServedModel
from workbench.server.spreading import check_spread, not_spread, restart_stopped
from workbench.session import Session
from workbench.session_status import LoadChoice, SessionState, SessionStatus

if TYPE_CHECKING:
    from workbench.distributed.parallel_engine import ReplicaFigures
    from workbench.llm import LlamaGPU

__all__ = ["ModelHost"]


class ModelHost:
    """Gives the routes the session's model, and lets one caller at a time change it.

    With `may_change` false the model belongs to somebody else, who loads and unloads it. `first_sources` may always be
    loaded again: by default what the session has loaded now. One event loop uses it.
    """

    def __init__(
        self,
        session: Session,
        *,
        may_change: bool = True,
        aliases: tuple[str, ...] = (),
        drain_s: float = 30.0,
        first_sources: tuple[str, ...] = (),
    ) -> None:
        self._session = session
        self._may_change = may_change
        self._aliases = aliases
        self._drain_s = drain_s
        # Precision that the next load uses; None keeps that of the present model.
        self.next_precision: str | None = None
        found = session.status.choice
        self.first_sources = first_sources or ((found.model,) if found is not None else ())
        self._served: ServedModel | None = None
        self._is_changing = False
        self._is_out_of_service = False
        self._num_users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @classmethod
    def factory(cls, session: Session, **options: Any) -> Callable[[], ModelHost]:
        """Makes the host later, on the event loop that uses it."""
        return lambda: cls(session, **options)

    @property
    def is_ready(self) -> bool:
        """Whether requests can be answered now."""
        return not self._is_out_of_service and self._find() is not None

    @property
    def model_id(self) -> str:
        """Id of the loaded model; "" while there is none."""
        found = self._find()
        return found.model_id if found else ""

    @property
    def is_healthy(self) -> bool:
        """False when a model should be there and its engine has died."""
        llm = self.llm
        return llm is None or llm.is_loaded

    @property
    def is_degraded(self) -> bool:
        """Whether less serves than was asked for: replicas have stopped, or GPUs were not there."""
        found = self._find()
        return found is not None and found.llm.degraded_reason is not None

    @property
    def status(self) -> SessionStatus:
        """What the session says of itself."""
        return self._session.status

    @property
    def llm(self) -> LlamaGPU | None:
        """The session's model, alive or dead; None while there is none."""
        if self._session.status.state is not SessionState.READY:
            return None
        try:
            return self._session.llm
        except EngineStoppedError:
            return None

    @property
    def why_not_served(self) -> str:
        """Why requests are not answered, in words that may go out."""
        if self._is_out_of_service:
            return "the model is being changed: try again soon"
        death = self.llm.death if self.llm is not None else None
        if death is None:
            return "no model is loaded"
        return f"the model has died: {death.ended_process or 'the log of the server has the cause'}"

    def served(self, name: str | None = None, revision: str | None = None) -> ServedModel:
        """The loaded model. Raises a 404 for another name or revision, a 503 while none is loaded."""
        found = None if self._is_out_of_service else self._find()
        if found is None:
            raise ApiError(503, self.why_not_served, code="model_not_loaded", headers={"retry-after": "5"})
        if name is not None and name not in found.names:
            raise ApiError(
                404, f"the model is not loaded; loaded is {found.model_id}", param="model", code="model_not_found"
            )
        if revision is not None and revision != found.revision:
            raise ApiError(404, "that revision is not loaded", param="revision", code="model_not_found")
        return found

    def capacity(self) -> int:
        """Answers that run in the engine at once, and some more so that it never waits for the next."""
        found = self._find()
        return max(1, found.llm.limits.max_num_seqs * 5 // 4) if found else 1

    def stats(self) -> EngineStats | None:
        """The engine's figures, None while there is none. May wait for a step to end."""
        try:
            return self._session.stats()
        except EngineStoppedError:
            return None

    def replicas(self) -> list[ReplicaFigures]:
        """The replicas of a model that is spread over devices, alive or dead; else none."""
        llm = self.llm
        return [] if llm is None or llm.parallel is None else llm.replicas()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the model from being changed, for a while at least."""
        self._num_users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._num_users -= 1
            if not self._num_users:
                self._unused.set()

    @property
    def device(self) -> tuple[str, int] | None:
        """Backend and index of the device that the model is on; None while there is none."""
        found = self._find()
        return (found.llm.backend.name, found.llm.device_index) if found else None

    @property
    def batch_share(self) -> float:
        """Share of the engine's batch that is in use, from 0 to 1. May wait for a step to end."""
        found, stats = self._find(), self.stats()
        return stats.num_running / found.llm.limits.max_num_seqs if found and stats else 0.0

    async def load(
        self, source: str, check: Callable[[], None], on_progress: Callable[[Progress], None]
    ) -> ServedModel:
        """Put another model in place of the loaded one, on the same backend.

        `check` (run in a thread) looks at the new model's files first, so that what is wrong with them is found while
        the old model still serves. On a cluster it serves until the new one does. When loading fails later, the old
        model serves again. Raises a 409 when the model is being changed already or is not ours to change.
        """
        with self._changing():
            await asyncio.to_thread(check)
            before = self._present_choice()
            kept = before or LoadChoice()
            draft = kept.draft_model if source == kept.model else None
            choice = replace(kept, model=source, precision=self.next_precision or kept.precision, draft_model=draft)
            status = await self._replace(choice, before, on_progress)
        if not _is_done(status):
            raise load_error(status.failure.kind if status.failure else "LoadCancelled")
        return self.served()

    async def spread(self, parallel: GPUConfig, backend: str) -> ServedModel:
        """Load the present model anew over several devices of a backend; if that fails, as it was before.

        Where it is spread so already, replicas that have died are started anew beside the others. Raises a 503 while no
        model is loaded, a 400 with the reason if it cannot be spread so, and a 409 as `load`.
        """
        # One that has died can be spread too.
        llm = self.llm or self.served().llm
        with self._changing():
            check_spread(llm, parallel)
            before = self._present_choice()
            # `served` has found the model, and nobody else may change it now.
            assert before is not None
            meant = parallel.with_fraction(llm.engine_config.memory_fraction)
            if llm.is_loaded and (llm.parallel, llm.backend.name) == (meant, backend):
                await restart_stopped(llm)
                return self.served()
            choice = replace(before, backend=backend, gpus=(), parallel=parallel)
            status = await self._replace(choice, before, lambda progress: None)
        if not _is_done(status):
            raise not_spread(status.failure)
        return self.served()

    async def _replace(
        self, choice: LoadChoice, before: LoadChoice | None, on_progress: Callable[[Progress], None]
    ) -> SessionStatus:
        """Load a choice, or `before` again if that fails; what came of the choice."""
        found = self._find()
        if found is not None and await asyncio.to_thread(found.llm.make_room):
            # The session lets it serve until the next one does.
            return await self._settled(lambda: self._session.load(choice), on_progress)
        with self._out_of_service():
            await self._wait_until_unused()
            status = await self._settled(lambda: self._session.load(choice), on_progress)
            if not _is_done(status) and before is not None:
                await self._settled(lambda: self._session.load(before), on_progress)
        return status

    def _present_choice(self) -> LoadChoice | None:
        """What would load the present model again, alive or dead; None while there is none."""
        llm, choice = self.llm, self._session.status.choice
        if llm is None or choice is None:
            return None
        # A quantised model's own precision is that of its computations only.
        precision = llm.quant_type or llm.dtype
        # A choice names it, and only what was loaded from a choice is ever changed.
        assert isinstance(precision, str)
        return replace(choice, precision=precision)

    async def unload(self) -> dict[str, int]:
        """Have no model loaded: bytes freed by device."""
        with self._changing(), self._out_of_service():
            await self._wait_until_unused()
            status = await self._settled(self._session.unload, lambda progress: None)
        return dict(status.freed_bytes)

    def close(self) -> None:
        """Let go of the model."""
        self._served = None
        self._session.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if not self._may_change:
            raise ApiError(
                409,
                "this endpoint serves a model that a notebook holds: load and unload it there",
                code="model_is_shared",
            )
        if self._is_changing or not self._session.is_settled:
            raise ApiError(409, "another load or unload is going on", code="load_in_progress")
        self._is_changing = True
        try:
            yield
        finally:
            self._is_changing = False

    @contextmanager
    def _out_of_service(self) -> Iterator[None]:
        """Refuse requests meanwhile."""
        self._is_out_of_service = True
        try:
            yield
        finally:
            self._is_out_of_service = False
            self._served = None

    async def _wait_until_unused(self) -> None:
        """Let running requests end; what takes longer is ended by the unload."""
        try:
            async with asyncio.timeout(self._drain_s):
                await self._unused.wait()
        except TimeoutError:
            pass

    async def _settled(self, start: Callable[[], None], on_progress: Callable[[Progress], None]) -> SessionStatus:
        """Start a change and wait for its end, passing its progress on."""
        loop = asyncio.get_running_loop()

        def watch(status: SessionStatus) -> None:
            if status.progress is not None:
                loop.call_soon_threadsafe(on_progress, status.progress)

        forget = self._session.observe(watch)
        try:
            start()
            return await asyncio.to_thread(self._session.wait)
        finally:
            forget()

    def _find(self) -> ServedModel | None:
        """The session's model while it lives, with its surroundings made once."""
        llm = self.llm
        if llm is None or not llm.is_loaded:
            return None
        if self._served is None or self._served.llm is not llm:
            self._served = ServedModel.of(llm, self._aliases)
        return self._served


def _is_done(status: SessionStatus) -> bool:
    """Whether what was asked for last is loaded: what stays in place of it is READY with its failure."""
    return status.state is SessionState.READY and status.failure is None
