"""Runs a workload on every engine, turn by turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from workbench.backends import detect
from workbench.backends.nvml import driver_uuid
from workbench.backends.processor import Processor
from workbench.benchmark.engine_choice import EngineChoice
from workbench.benchmark.engine_process import Answered, EngineProcess, Started
from workbench.benchmark.figures import FIGURES, EngineFigures, Report
from workbench.benchmark.gpu_meter import GPUMeter, used_bytes_by_gpu
from workbench.benchmark.machine import machine_facts
from workbench.benchmark.spread import Spread, percentile
from workbench.benchmark.workload import Workload
from workbench.models import Catalogue, ModelFiles
from workbench.progress import ProgressCallback, no_progress

__all__ = ["run_benchmark"]

_BYTES_PER_MB = 1e6
_MS_PER_S = 1e3
_FIRST_SEED = -1_000_000

Say = Callable[[str], None]


def run_benchmark(
    model: str,
    choices: Sequence[EngineChoice],
    workload: Workload,
    *,
    threads: int | None = None,
    say: Say = lambda line: None,
    progress: ProgressCallback = no_progress,
) -> Report:
    """Start all engines, warm them up, and measure them in turn, `workload.runs` times.

    `threads` are those of each engine on a CPU (None: every physical core). An engine that is not installed, or fails,
    is listed with the reason. `say` is told how far it is. Raises what finding the model raises.
    """
    threads = threads or Processor().num_physical_cores()
    files = Catalogue().resolve(model, progress=progress)
    with ExitStack() as stack:
        subjects = [_start(stack, choice, files, model, workload, threads, say) for choice in choices]
        sizes = [one.started.vocab_size for one in subjects if one.started is not None]
        for number in range(-workload.warmup_runs, workload.runs):
            for subject in subjects:
                if subject.is_working:
                    subject.run(workload, number, min(sizes))
                    say(f"{subject.choice.label}: {'warm-up' if number < 0 else f'run {number + 1}'}")
        found = [subject.figures() for subject in subjects]
    return Report(files.name, workload, machine_facts(detect(), threads), found)


def _start(
    stack: ExitStack,
    choice: EngineChoice,
    files: ModelFiles,
    model: str,
    workload: Workload,
    threads: int,
    say: Say,
) -> _Subject:
    """One engine, loaded before the next one starts: loading is heavy, and some measure the machine meanwhile."""
    obstacle = choice.obstacle(files)
    if obstacle is not None:
        say(f"{choice.label}: {obstacle}")
        return _Subject(choice, None, None, obstacle)
    used_before = used_bytes_by_gpu()
    words = choice.arguments(files, model, threads=threads, context_length=workload.context_length)
    process = stack.enter_context(EngineProcess([*words, f"--sequences={workload.batch_size}"], choice.python))
    started = process.start()
    if started is not None:
        # Pools and graphs are made by the first request: the card's memory is read after it, with nobody else at work.
        process.generate(workload.prompts(_FIRST_SEED, started.vocab_size), 1)
    say(f"{choice.label}: {process.error or (started and started.version)}")
    return _Subject(choice, process, started, process.error, used_before)


@dataclass
class _Subject:
    """One engine and what its runs have given."""

    choice: EngineChoice
    process: EngineProcess | None
    started: Started | None
    error: str | None
    used_before: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._meter = GPUMeter(None if self.started is None else self.started.gpu_uuid)
        self._gpu_bytes = self._taken_gpu_bytes()

    @property
    def is_working(self) -> bool:
        return self.process is not None and self.error is None

    def run(self, workload: Workload, number: int, vocab_size: int) -> None:
        """The whole workload once: to the first token, then in full. Negative numbers warm up."""
        assert self.process is not None
        # Two sets of prompts a run, none of them ever used again.
        first = self.process.generate(workload.prompts(2 * number, vocab_size), 1)
        joules_before = self._meter.joules()
        whole = self.process.generate(workload.prompts(2 * number + 1, vocab_size), workload.new_tokens)
        joules_after = self._meter.joules()
        self.error = self.process.error
        if first is None or whole is None:
            return
        if number >= 0:
            sample = _timed(workload, first, whole)
            if joules_before is not None and joules_after is not None:
                num_tokens = workload.batch_size * workload.new_tokens
                sample["energy_j_per_token"] = (joules_after - joules_before) / num_tokens
            self.samples.append(sample)

    def figures(self) -> EngineFigures:
        """All runs together, and the memory that they took."""
        peak_bytes = None if self.process is None or not self.samples else self.process.peak_memory_bytes()
        constant = {"memory_mb": peak_bytes, "gpu_memory_mb": self._gpu_bytes if self.samples else None}
        spreads = {key: Spread.of([sample.get(key) for sample in self.samples]) for key in FIGURES}
        spreads |= {
            key: None if value is None else Spread.of([value / _BYTES_PER_MB]) for key, value in constant.items()
        }
        known = {key: spread for key, spread in spreads.items() if spread is not None}
        version = "" if self.started is None else self.started.version
        return EngineFigures(self.choice, version, known, self.error)

    def _taken_gpu_bytes(self) -> int | None:
        """What the card holds more than before this engine was started."""
        used, uuid = self._meter.used_bytes(), None if self.started is None else self.started.gpu_uuid
        if used is None or uuid is None:
            return None
        before = self.used_before.get(driver_uuid(uuid))
        return None if before is None else max(0, used - before)


def _timed(workload: Workload, first: Answered, whole: Answered) -> dict[str, float | None]:
    """The figures of one run. What follows the first token is taken as the difference of the two calls."""
    batch, new = workload.batch_size, workload.new_tokens
    after_first_s = whole.seconds - first.seconds
    sample: dict[str, float | None] = {
        "ttft_ms": first.seconds * _MS_PER_S,
        "prefill_tokens_per_s": batch * workload.prompt_tokens / first.seconds,
        "tokens_per_s": batch * new / whole.seconds,
    }
    if new > 1 and after_first_s > 0:
        sample["inter_token_ms"] = after_first_s / (new - 1) * _MS_PER_S
        sample["decode_tokens_per_s"] = batch * (new - 1) / after_first_s
    gap_s = percentile(whole.gaps_s, 95)
    if gap_s is not None:
        sample["inter_token_p95_ms"] = gap_s * _MS_PER_S
    return sample
