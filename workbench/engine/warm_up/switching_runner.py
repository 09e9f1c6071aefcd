"""Serves on torch's operators at once, and on the GPU's own kernels from the step after they are captured.

The preparation is cut into slices that run between steps, in the engine's thread: running streams wait for one at most.
What takes long, compiling, is done by another process meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from workbench.engine.graph_runner import GraphRunner
from workbench.engine.runner import LaunchedStep, Runner
from workbench.engine.runner_status import MEANWHILE, RunnerStatus
from workbench.engine.sequence import Sequence as AnswerSequence
from workbench.engine.step_packer import StepKind
from workbench.engine.step_plan import StepPlan
from workbench.engine.warm_up.compile_process import CompileProcess
from workbench.engine.warm_up.kernel_job import CudaJob, KernelJob, hash_triton
from workbench.engine.warm_up.noted_kernels import NotedKernels

__all__ = ["SwitchingRunner"]

_log = logging.getLogger(__name__)

# Slices follow each other until so much time has gone by, then comes a step.
_SLICE_S = 0.02
# One makes the runner, the next runs its first step.
_FIRST_SLICES = 2
# How often an idle engine looks whether the kernels are compiled.
_LOOK_EVERY_S = 0.05


class SwitchingRunner:
    """See Runner. Both runners read and write the same KV pool, so a request goes on where it stands.

    `make` gives the faster runner, uncaptured, and `describe` words for it; it may be called twice. `compile` starts
    compiling. Between steps `advance` does a slice of the work, and an engine without work calls it again after
    `most_idle_s` seconds (None: never).
    """

    def __init__(
        self,
        plain: Runner,
        status: RunnerStatus,
        *,
        make: Callable[[], GraphRunner],
        describe: Callable[[GraphRunner], str],
        compile: Callable[[Sequence[KernelJob]], CompileProcess] = CompileProcess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.overlaps = plain.overlaps
        self.most_idle_s: float | None = 0.0
        self._current: Runner = plain
        self._status = status
        self._make = make
        self._describe = describe
        self._compile = compile
        self._clock = clock
        self._started_s = clock()
        self._work: Iterator[float] | None = self._prepare()
        status.words = f"{MEANWHILE}the GPU's kernels are being looked up"
        # What loads libraries takes longest, and nobody waits for a token yet.
        hash_triton()
        self._do_slices(_FIRST_SLICES)

    @property
    def current(self) -> Runner:
        """The one that computes at the moment."""
        return self._current

    def needs_history(self, sequence: AnswerSequence) -> bool:
        """See Runner."""
        return self._current.needs_history(sequence)

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """See Runner."""
        return self._current.launch(plan)

    def advance(self) -> None:
        """Some slices of the preparation, with no step in flight. Whatever goes wrong, the model is served without."""
        if self._work is None:
            return
        ends_s = self._clock() + _SLICE_S
        while self._work is not None and self._clock() < ends_s and not self._do_slices(1):
            pass

    def _do_slices(self, number: int) -> bool:
        """Some slices; whether nothing more can be done at the moment."""
        try:
            for _ in range(number):
                assert self._work is not None  # else nobody asks
                self.most_idle_s = next(self._work)
                if self.most_idle_s > 0:
                    return True
        except StopIteration:
            self.close()
        except Exception as error:  # the plain runner goes on
            _log.exception("the GPU's kernels could not be prepared")
            self.close()
            self._status.words = f"torch's operators: the GPU's kernels could not be prepared: {error}"
        return self._work is None

    def finish(self) -> None:
        """Do all that is left, and wait for what others do."""
        while self._work is not None:
            self.advance()
            if self.most_idle_s:
                time.sleep(self.most_idle_s)

    def close(self) -> None:
        """Stop preparing: no process and nothing half made is left."""
        work, self._work, self.most_idle_s = self._work, None, None
        if work is not None:
            # It holds this object, which holds it.
            work.close()  # type: ignore[attr-defined]

    def _prepare(self) -> Iterator[float]:
        """Every slice ends with the seconds after which the next one may come."""
        noted = NotedKernels()
        with noted.noting():
            runner = self._make()
        yield 0.0
        mixed = [(StepKind.MIXED, size) for size in runner.steps.sizes_without_graph]
        for kind, size in [*mixed, *runner.steps.sizes]:
            with noted.noting(), runner.steps.decoder.one_layer_of_each_kind():
                runner.steps.try_out(kind, size)
            yield 0.0
        missing: list[KernelJob] = [CudaJob(source) for source in noted.sources]
        for job in noted.triton:
            if not job.is_compiled():
                missing.append(job)
            yield 0.0
        yield from self._wait_for_compilers(missing)
        if noted.sources:
            del runner
            runner = self._make()
            yield 0.0
        for job in noted.triton:
            # Of several devices each has kernels of its own.
            with runner.steps.here:
                job.load()
            yield 0.0
        for kind, size in mixed:
            runner.steps.try_out(kind, size)
            yield 0.0
        for done, (kind, size) in enumerate(runner.steps.sizes):
            self._say(f"its graphs are being captured: {done} of {len(runner.steps.sizes)}")
            runner.steps.try_out(kind, size)
            yield 0.0
            runner.steps.capture_size(kind, size)
            yield 0.0
        self._current, self.overlaps = runner, runner.overlaps
        took_s = self._clock() - self._started_s
        self._status.words = f"{self._describe(runner)}; torch's operators for the first {took_s:.0f} s"

    def _wait_for_compilers(self, jobs: Sequence[KernelJob]) -> Iterator[float]:
        if not jobs:
            return
        with closing(self._compile(jobs)) as compiling:
            has_ended = False
            while not has_ended:
                has_ended = compiling.poll()
                self._say(f"the GPU's kernels are being compiled: {compiling.num_done} of {compiling.num_jobs}")
                yield _LOOK_EVERY_S
        # What is not in the cache now is compiled where it is needed, which holds up whoever waits for a token.
        for failure in [*compiling.failures, *filter(None, [compiling.end_reason])]:
            _log.warning("a kernel was not compiled beside the engine: %s", failure)

    def _say(self, what: str) -> None:
        words = MEANWHILE + what
        if words != self._status.words:
            self._status.words = words
