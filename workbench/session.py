"""One loaded model that several surfaces share: load, unload, submit, observe. Knows no widget and no web page."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, EngineStoppedError, LoadCancelled, WorkbenchError
from workbench.failure import Failure
from workbench.progress import Progress, ProgressCallback
from workbench.session_status import LoadChoice, LoadedFacts, SessionState, SessionStatus
from workbench.twin import HasTwin, Twin
from workbench.unload_receipt import UnloadReceipt, make_receipt

if TYPE_CHECKING:
    from workbench.engine import EngineConfig, EngineStats, Generation
    from workbench.llm import LlamaGPU

__all__ = ["LoadChoice", "LoadedFacts", "Session", "SessionState", "SessionStatus", "engine_of", "load_engine"]

_log = logging.getLogger(__name__)

# Waits are cut into pieces this long, so that an interrupt of the waiting thread is noticed.
_WAIT_STEP_S = 0.2
# Of a choice, under their names in EngineConfig.
_ENGINE_FIELDS = ("context_length", "kv_dtype", "cpu_offload_layers", "engine_name", "draft_model")
# A model that another has taken the place of may go on with its requests that long.
_LONGEST_DRAIN_S = 120.0


EngineFactory = Callable[[LoadChoice, ProgressCallback], "LlamaGPU"]
Observer = Callable[[SessionStatus], None]


def load_engine(choice: LoadChoice, progress: ProgressCallback) -> LlamaGPU:
    """Load a choice with `LlamaGPU`. Raises what it raises."""
    from workbench.engine import EngineConfig
    from workbench.llm import LlamaGPU

    if len(choice.gpus) > 1:
        raise ConfigError(f"gpus={choice.gpus!r}: one device takes one GPU; for several give parallel=GPUConfig(...)")
    return LlamaGPU(
        choice.model,
        backend=choice.backend,
        quant_type=choice.precision,
        device_index=choice.gpus[0] if choice.gpus else 0,
        engine=engine_of(choice, EngineConfig()),
        parallel=choice.parallel,
        progress=progress,
    )


def engine_of(choice: LoadChoice, engine: EngineConfig) -> EngineConfig:
    """`engine` with what a choice says of it; what the choice leaves open stays."""
    named = {name: getattr(choice, name) for name in _ENGINE_FIELDS}
    return replace(engine, **{name: value for name, value in named.items() if value is not None})


class _Wish:
    """The latest thing somebody asked for: a choice to load, or None to have nothing loaded."""

    def __init__(self, choice: LoadChoice | None) -> None:
        self.choice = choice
        self.is_outdated = False


class Session(HasTwin):
    """Loads and unloads on a thread of its own; every method returns at once (except `wait` and `close`).

    The last wish wins: a new `load` or `unload` cancels the load that runs, and what was loaded before is unloaded
    first, so that two models never lie in memory at once. Only a model on a cluster goes on serving until the next one
    serves, then ends its requests and goes; if the next one fails, it stays: READY, with the failure.

    There is at most one worker thread, and none while nothing is to do. Methods may be called from any thread;
    observers are called on the worker (of `adopt`, `announce` and a cancelled load on the caller's), one at a time, and
    should return quickly.
    """

    def __init__(self, factory: EngineFactory = load_engine) -> None:
        self._factory = factory
        self._status = SessionStatus()
        self._llm: LlamaGPU | None = None
        self._owns_llm = True
        self._wish: _Wish | None = None
        self._worker: threading.Thread | None = None
        # Somebody else is loading what will be adopted.
        self._is_announced = False
        self._is_closed = False
        self._observers: list[Observer] = []
        self._changed = threading.Condition(threading.RLock())
        self._telling = threading.RLock()

    def twin(self) -> Twin:
        """What is loaded, without figures."""
        status = self._status
        rows = [("state", status.state.value)]
        if status.facts is not None:
            facts = status.facts
            rows += [("model", facts.model), ("backend", facts.backend), ("weights", facts.precision)]
        return Twin("Session", tuple(rows))

    @property
    def status(self) -> SessionStatus:
        """Where it stands now."""
        return self._status

    @property
    def is_settled(self) -> bool:
        """True when no load or unload is running or waiting, also of what was announced."""
        return self._worker is None and not self._is_announced

    @property
    def llm(self) -> LlamaGPU:
        """The loaded engine. Raises EngineStoppedError unless the state is READY."""
        llm = self._llm
        if llm is None:
            raise EngineStoppedError(f"no model is loaded (the session is {self._status.state.value})")
        return llm

    def observe(self, callback: Observer) -> Callable[[], None]:
        """Call `callback(status)` at every change; the returned function ends that."""
        with self._changed:
            self._observers.append(callback)

        def forget() -> None:
            with self._changed:
                if callback in self._observers:
                    self._observers.remove(callback)

        return forget

    def load(self, choice: LoadChoice) -> None:
        """Have `choice` loaded, in place of what is. Nothing happens if it is loaded already and alive."""
        with self._changed:
            is_alive = self.is_settled and self._llm is not None and self._llm.is_loaded
            if is_alive and self._status.choice == choice:
                return
            is_news = self._ask(choice)
        if is_news:
            self._tell()

    def unload(self) -> None:
        """Have nothing loaded. A load that runs is cancelled: at its next step, which the status says until then."""
        with self._changed:
            is_news = self._ask(None)
        if is_news:
            self._tell()

    # The same wish under the name that a user looks for while a load runs.
    cancel = unload

    def announce(self, model: str) -> None:
        """Somebody else loads `model` and adopts it: until then the state is LOADING and nothing else is loaded."""
        with self._changed:
            self._require_open()
            if not self.is_settled or self._llm is not None:
                raise ConfigError("a model is loaded or loading already")
            self._is_announced = True
            self._status = SessionStatus(SessionState.LOADING, LoadChoice(model))
        self._tell()

    def adopt(self, llm: LlamaGPU) -> None:
        """Share an engine that somebody else loaded. It is unloaded on `unload()`, but left alone by `close()`.

        Raises EngineStoppedError if it is unloaded, ConfigError while something else is loaded or loading.
        """
        with self._changed:
            if llm is self._llm:
                return
            if not llm.is_loaded:
                raise EngineStoppedError("llm is unloaded: load it again before it is shared")
            if self._worker is not None or self._llm is not None:
                raise ConfigError("llm: a model is loaded already; unload it before another is adopted")
            self._require_open()
            self._is_announced = False
            self._llm, self._owns_llm = llm, False
            facts = _facts(llm, str(llm.model_path))
            self._status = SessionStatus(SessionState.READY, _choice_of(llm, facts), facts=facts)
        self._tell()

    def is_sharing(self, llm: LlamaGPU) -> bool:
        """Whether `llm` is the engine that is loaded."""
        return self._llm is llm

    def submit(self, prompt: str | list[int] | None = None, **request: Any) -> Generation:
        """Start a request on the loaded engine (see `LlamaGPU.submit`). Raises EngineStoppedError if there is none."""
        if prompt is not None:
            request["prompt"] = prompt
        return self.llm.submit(**request)

    def stats(self) -> EngineStats | None:
        """The engine's statistics, or None while nothing is loaded."""
        llm = self._llm
        return None if llm is None else llm.stats()

    def wait(self, timeout_s: float | None = None) -> SessionStatus:
        """Block until it is settled, at most `timeout_s`; an interrupt gets through. Raises TimeoutError."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self.is_settled:
                left_s = _WAIT_STEP_S if deadline_s is None else deadline_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"the session is still {self._status.state.value} after {timeout_s} s")
                self._changed.wait(min(left_s, _WAIT_STEP_S))
            return self._status

    def close(self, timeout_s: float = 10.0) -> None:
        """Cancel, unload an engine of its own, and accept nothing more. Waits at most `timeout_s` for the worker."""
        with self._changed:
            if self._is_closed:
                return
            if self._is_announced or (self._llm is not None and not self._owns_llm):
                self._llm, self._is_announced = None, False
                self._status = SessionStatus()
            if self._llm is not None or not self.is_settled:
                self._ask(None)
            self._is_closed = True
            worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join(timeout_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise EngineStoppedError("the session is closed: make a new one")

    def _ask(self, choice: LoadChoice | None) -> bool:
        """Make this the wish to fulfil, and see that somebody does. The caller holds the lock, and tells the observers
        once it has let go if the status is another: then this gives True."""
        self._require_open()
        if self._is_announced:
            raise ConfigError(f"{self._status.choice.model if self._status.choice else 'a model'} is being loaded")
        if self._wish is not None:
            self._wish.is_outdated = True
        self._wish = _Wish(choice)
        is_news = self._status.state is SessionState.LOADING and not self._status.is_cancelling
        if is_news:
            self._status = replace(self._status, is_cancelling=True)
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="workbench-session", daemon=True)
            self._worker.start()
        return is_news

    def _work(self) -> None:
        """The worker: fulfil wishes until the latest one is done."""
        wish: _Wish | None = None
        while True:
            with self._changed:
                if self._wish is None or self._wish is wish:
                    self._wish = self._worker = None
                    self._changed.notify_all()
                    return
                wish = self._wish
            self._fulfil(wish)

    def _fulfil(self, wish: _Wish) -> None:
        if wish.choice is not None and self._llm is not None and self._llm.make_room():
            self._exchange(wish, wish.choice, self._llm)
            return
        receipt = self._drop_engine()
        empty = SessionStatus()
        freed = empty if receipt is None else replace(empty, freed_bytes=receipt.freed_bytes, receipt=receipt)
        if wish.choice is None:
            self._publish(freed)
            return
        self._publish(replace(freed, state=SessionState.LOADING, choice=wish.choice))
        self._publish(self._load(wish, wish.choice))

    def _exchange(self, wish: _Wish, choice: LoadChoice, before: LlamaGPU) -> None:
        """Load a choice while what was loaded serves, and let that go once its requests have ended."""
        present = self._status
        self._publish(replace(present, failure=None))
        status = self._load(wish, choice, shown=lambda progress: replace(present, progress=progress, failure=None))
        if status.state is not SessionState.READY:
            before.reclaim_room()
            self._publish(replace(present, failure=status.failure))
            return
        self._publish(status)
        deadline_s = time.monotonic() + _LONGEST_DRAIN_S
        with self._changed:
            while before.requests() and time.monotonic() < deadline_s:
                self._changed.wait(_WAIT_STEP_S)
        before.unload()

    def _load(
        self, wish: _Wish, choice: LoadChoice, shown: Callable[[Progress], SessionStatus] | None = None
    ) -> SessionStatus:
        """What comes of a choice; `shown(progress)` is the status meanwhile."""
        shown = shown or (lambda progress: replace(self._status, progress=progress))

        def report(progress: Progress) -> None:
            with self._changed:
                if wish.is_outdated:
                    raise LoadCancelled(f"loading {choice.model} was cancelled")
                self._status = shown(progress)
            self._tell()

        try:
            llm = self._factory(choice, report)
            facts = _facts(llm, choice.model)
        except LoadCancelled:
            return SessionStatus()
        except Exception as error:
            failure = Failure.of(error)
            if not isinstance(error, WorkbenchError):
                _log.error("loading %s failed\n%s", choice.model, failure.details)
        else:
            if wish.is_outdated:
                llm.unload()
                return SessionStatus()
            self._llm, self._owns_llm = llm, True
            return SessionStatus(SessionState.READY, choice, facts=facts)
        # The error is gone here, and with it the frames that held what was half loaded; cycles among them are not.
        gc.collect()
        return SessionStatus(SessionState.FAILED, choice, failure=failure)

    def _drop_engine(self) -> UnloadReceipt | None:
        """Unload what is loaded, and say what that gave back; None where nothing was."""
        if self._llm is None:
            return None
        self._publish(replace(self._status, state=SessionState.UNLOADING, facts=None))
        llm, self._llm = self._llm, None
        expected_bytes = int(getattr(llm, "weight_bytes", 0))
        try:
            freed_bytes = llm.unload()
            return make_receipt(freed_bytes, expected_bytes)
        except Exception:
            _log.exception("unloading failed")
            return None

    def _publish(self, status: SessionStatus) -> None:
        with self._changed:
            self._status = status
        self._tell()

    def _tell(self) -> None:
        # One observer at a time and in order, also when `adopt` and the worker meet.
        with self._telling:
            with self._changed:
                status, observers = self._status, tuple(self._observers)
            for observer in observers:
                try:
                    observer(status)
                except Exception:
                    _log.exception("an observer of the session failed")


def _choice_of(llm: LlamaGPU, facts: LoadedFacts) -> LoadChoice:
    """What loads the same again, as far as a choice can say it."""
    config = llm.engine_config
    return LoadChoice(
        facts.model,
        facts.backend,
        facts.precision,
        config.context_length,
        # The first device is the one that is taken where none is named.
        (llm.device_index,) if llm.device_index and llm.parallel is None else (),
        config.kv_dtype,
        config.cpu_offload_layers,
        None if config.engine_name == "paged" else config.engine_name,
        llm.parallel,
        config.draft_model,
    )


def _facts(llm: LlamaGPU, model: str) -> LoadedFacts:
    return LoadedFacts(model=model, backend=llm.backend.name, precision=llm.precision, max_context=llm.max_context)
