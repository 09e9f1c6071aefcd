"""Times an engine's steps from outside: it wraps the engine's own parts while it records, and puts them back. An engine
that is not recorded pays nothing."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # documented, and not in its __all__
from torch.profiler import ProfilerActivity, profile, record_function

from workbench.telemetry import OperationRow, StepProfile, StepSplit
from workbench.telemetry.step_profile import PHASES

__all__ = ["StepProfiler"]

# Steps that are kept, and operations that are listed.
_MOST_STEPS, _MOST_OPERATIONS = 10_000, 40


class StepProfiler:
    """Records from its making until `stop`, on the engine's thread. With operations, torch's profiler runs too and
    makes steps slower: take the split from a recording without."""

    def __init__(self, engine: Any, *, with_operations: bool = False) -> None:
        self._engine = engine
        self._restore: list[Callable[[], None]] = []
        self._steps: list[StepSplit] = []
        self._phases: defaultdict[str, float] = defaultdict(float)
        self._tokens = (0, 0)
        self._forwards: list[tuple[float, float]] = []
        self._forward_began_s = 0.0
        self._torch = self._start_torch() if with_operations else None
        self._wrap_all()

    def stop(self) -> StepProfile:
        """Put everything back and give what was recorded."""
        for restore in reversed(self._restore):
            restore()
        if self._torch is None:
            return StepProfile(tuple(self._steps))
        self._torch.__exit__(None, None, None)
        return StepProfile(
            tuple(self._steps), _operations(self._torch), _stacks(self._torch.events()), _trace(self._torch)
        )

    def _start_torch(self) -> profile:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        recorder = profile(activities=activities)
        recorder.__enter__()
        return recorder

    def _wrap_all(self) -> None:
        engine = self._engine
        self._wrap(engine, "step", self._step)
        self._wrap(engine.scheduler, "schedule", lambda call: self._timed("schedule", call))
        self._wrap(engine._runner, "launch", self._launch)
        self._wrap(engine, "_finish", lambda call: self._timed("detokenise", call))
        # A runner that prepares a faster one hands its calls on to the one in use.
        runner = getattr(engine._runner, "_current", engine._runner)
        decoder = getattr(runner, "_decoder", None)
        if hasattr(decoder, "run"):
            self._wrap(decoder, "run", self._run_native)
        module = getattr(runner, "module", None)
        if isinstance(module, torch.nn.Module):
            before = module.register_forward_pre_hook(lambda *_: self._forward_begins())
            after = module.register_forward_hook(lambda *_: self._forward_ends())
            self._restore += [before.remove, after.remove]
            if self._torch is not None:
                self._name_modules(module)

    def _wrap(self, owner: Any, name: str, around: Callable[[Callable[[], Any]], Any]) -> None:
        """Let `around` make every call of `owner.name`; an attribute of the object itself hides the class's."""
        original = getattr(owner, name)
        setattr(owner, name, lambda *given: around(lambda: original(*given)))
        self._restore.append(lambda: delattr(owner, name))

    def _step(self, call: Callable[[], Any]) -> Any:
        self._phases.clear()
        self._tokens = (0, 0)
        began_s = time.perf_counter()
        result = call()
        total_s = time.perf_counter() - began_s
        if self._tokens[0] and len(self._steps) < _MOST_STEPS:
            other_s = max(0.0, total_s - sum(self._phases.values()))
            parts = {phase: self._phases[phase] for phase in PHASES if phase != "other"}
            num_tokens, num_decodes = self._tokens
            self._steps.append(StepSplit(**parts, other=other_s, num_tokens=num_tokens, num_decodes=num_decodes))
        return result

    def _timed(self, phase: str, call: Callable[[], Any]) -> Any:
        began_s = time.perf_counter()
        with self._named(phase):
            result = call()
        self._phases[phase] += time.perf_counter() - began_s
        if phase == "schedule":
            self._tokens = (result.num_tokens, result.num_decodes)
        return result

    def _launch(self, call: Callable[[], Any]) -> Any:
        """What lies before and between passes of the model is preparation, what follows the last is sampling.

        A runner that replays graphs shows no passes: its launch prepares, and the wait for its tokens is the device's
        time. Of one that is changed for another meanwhile the whole launch counts as the model's.
        """
        self._forwards.clear()
        began_s = time.perf_counter()
        with self._named("launch"):
            launched = call()
        ended_s = time.perf_counter()
        if self._forwards:
            forward_s = sum(end - begin for begin, end in self._forwards)
            last_s = self._forwards[-1][1]
            self._phases["forward"] += forward_s
            self._phases["prepare"] += last_s - began_s - forward_s
            self._phases["sample"] += ended_s - last_s
        else:
            self._phases["prepare" if self._engine._runner.overlaps else "forward"] += ended_s - began_s
        wait = launched.wait
        # Frozen, and made anew each step: only this one's wait is timed.
        object.__setattr__(launched, "wait", lambda: self._timed("forward", wait))
        return launched

    def _run_native(self, call: Callable[[], Any]) -> Any:
        self._forward_begins()
        with self._named("native decoder"):
            result = call()
        self._forward_ends()
        return result

    def _forward_begins(self) -> None:
        self._forward_began_s = time.perf_counter()

    def _forward_ends(self) -> None:
        self._forwards.append((self._forward_began_s, time.perf_counter()))

    def _named(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._torch is None else record_function(name)

    def _name_modules(self, module: torch.nn.Module) -> None:
        """Let every module's calls show under its class's name."""
        open_names: list[record_function] = []

        def enter(part: torch.nn.Module, *_: Any) -> None:
            named = record_function(type(part).__name__)
            named.__enter__()
            open_names.append(named)

        def leave(*_: Any) -> None:
            open_names.pop().__exit__(None, None, None)

        for part in module.modules():
            self._restore.append(part.register_forward_pre_hook(enter).remove)
            self._restore.append(part.register_forward_hook(leave).remove)


def _operations(recorder: profile) -> tuple[OperationRow, ...]:
    rows = []
    for event in recorder.key_averages():
        on_gpu = event.device_type != DeviceType.CPU
        own_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        total_us = event.device_time_total if on_gpu else event.cpu_time_total
        # Ranges that are named here (phases, modules) belong into the flame graph, not among torch's operations.
        if own_us > 0 and (on_gpu or "::" in event.key):
            rows.append(OperationRow(event.key, event.count, own_us / 1e6, total_us / 1e6, "gpu" if on_gpu else "cpu"))
    # Where a GPU works, its kernels are the ones that count.
    rows.sort(key=lambda row: (row.device == "cpu", -row.self_s))
    return tuple(rows[:_MOST_OPERATIONS])


def _stacks(events: Any) -> dict[tuple[str, ...], float]:
    """Own time by path of nested operations, outermost first."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for event in events:
        if event.device_type != DeviceType.CPU or event.self_cpu_time_total <= 0:
            continue
        path, parent = [event.name], event.cpu_parent
        while parent is not None:
            path.append(parent.name)
            parent = parent.cpu_parent
        stacks[tuple(reversed(path))] += event.self_cpu_time_total / 1e6
    return dict(stacks)


def _trace(recorder: profile) -> bytes:
    with tempfile.TemporaryDirectory(prefix="workbench-trace-") as folder:
        file = Path(folder) / "trace.json"
        recorder.export_chrome_trace(str(file))
        return gzip.compress(file.read_bytes(), compresslevel=3)
