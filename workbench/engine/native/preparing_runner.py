"""Serves on torch's operators at once, and on the native decoder from the step after it is ready."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable

from workbench.engine.runner import LaunchedStep, Runner
from workbench.engine.runner_status import RunnerStatus
from workbench.engine.sequence import Sequence
from workbench.engine.step_plan import StepPlan
from workbench.errors import WorkbenchError

__all__ = ["PreparingRunner"]

_log = logging.getLogger(__name__)


class PreparingRunner:
    """See Runner. Both runners read and write the same KV pool, so a request goes on where it stands.

    `compile` makes what any model needs and takes seconds; `pack` makes the runner of this model. They run in a thread
    of their own that does not keep this object alive: an engine that is stopped meanwhile is gone at once.
    """

    overlaps = False

    def __init__(
        self,
        plain: Runner,
        status: RunnerStatus,
        *,
        compile: Callable[[], object],
        pack: Callable[[object], Runner],
        on_switch: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._current = plain
        self._status = status
        self._pack = pack
        self._on_switch = on_switch
        self._ready: Runner | None = None
        self.prepared = threading.Event()
        thread = threading.Thread(
            target=_prepare, args=(weakref.ref(self), status, compile, self.prepared, clock), name="workbench-compile"
        )
        thread.daemon = True
        thread.start()

    def needs_history(self, sequence: Sequence) -> bool:
        """See Runner."""
        return self._current.needs_history(sequence)

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """See Runner."""
        if self._ready is not None:
            self._current, self._ready = self._ready, None
            self._on_switch()
        return self._current.launch(plan)

    def take(self, compiled: object) -> None:
        """Make the faster runner; the next step uses it."""
        self._ready = self._pack(compiled)


def _prepare(
    owner: weakref.ref[PreparingRunner],
    status: RunnerStatus,
    compile: Callable[[], object],
    prepared: threading.Event,
    clock: Callable[[], float],
) -> None:
    started_s = clock()
    try:
        compiled = compile()
        runner = owner()
        if runner is not None:
            runner.take(compiled)
            status.words = f"native decoder, compiled in {clock() - started_s:.0f} s; torch's operators until then"
    except WorkbenchError as error:
        status.words = f"torch's operators: {error}"
    except Exception as error:  # top of a thread: the model is served without it
        _log.exception("the native decoder could not be prepared")
        status.words = f"torch's operators: the native decoder could not be prepared: {error}"
    finally:
        prepared.set()
