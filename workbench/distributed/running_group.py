"""A group of ranks behind its engine's client, wherever the engine runs; here also one that runs in a process."""

from __future__ import annotations

import contextlib
from typing import Protocol

from workbench.distributed.group_figures import GroupFigures, GroupReport, RankFigures
from workbench.distributed.place import Place
from workbench.engine.client import EngineClient
from workbench.engine.isolation.process_core import ProcessCore
from workbench.engine.launch import EngineFacts, Launch
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import EngineStoppedError
from workbench.models import ModelFiles, Tokenizer
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.plugins import PluginManager
from workbench.progress import ProgressCallback

__all__ = ["IsolatedGroup", "LoadingGroup", "RunningGroup"]


class RunningGroup(Protocol):
    """What is known of a group whose engine takes requests."""

    @property
    def client(self) -> EngineClient: ...
    @property
    def facts(self) -> EngineFacts: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def status(self) -> RunnerStatus: ...

    def report(self) -> GroupReport:
        """Of its ranks, as they are now, or were last when it is dead."""
        ...


class LoadingGroup:
    """An engine that is being built by a process of its own, from this moment on: either `wait` or `cancel` it. Errors
    call it by `name`."""

    def __init__(self, launch: Launch, name: str) -> None:
        self._core = ProcessCore(launch, name)

    def wait(self, files: ModelFiles, plugins: PluginManager | None, progress: ProgressCallback) -> IsolatedGroup:
        """Raises what loading raises, and what `progress` raises; then no process stays."""
        try:
            # While the process imports and loads.
            tokenizer = load_doors_tokenizer(files)
            facts = self._core.wait_until_launched(progress).facts
            return IsolatedGroup(self._core, facts, tokenizer, plugins)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """End the process."""
        self._core.kill()
        self._core.stop()


class IsolatedGroup:
    """See RunningGroup: one whose engine runs in a process, which holds the model itself or has started ranks."""

    def __init__(
        self, core: ProcessCore, facts: EngineFacts, tokenizer: Tokenizer, plugins: PluginManager | None
    ) -> None:
        self.facts = facts
        self.tokenizer = tokenizer
        self.status = core.runner_status
        self._core = core
        self._report: GroupReport = core.read_figures() or _alone(core, facts)
        self._has_ranks = self._report.ranks[0].process_id != core.pid
        self.client = EngineClient(
            core.connect,
            max_context=facts.limits.max_context,
            vocab_size=facts.spec.vocab_size,
            structures=core,
            plugins=None if plugins is None else RequestPlugins(plugins),
            # Unlike those of any other group, so that several can be watched as one.
            id_prefix=f"req-{core.pid}",
        )

    def report(self) -> GroupReport:
        """See RunningGroup."""
        if self._has_ranks:
            with contextlib.suppress(EngineStoppedError):
                self._report = self._core.read_figures()
        return self._report


def _alone(core: ProcessCore, facts: EngineFacts) -> GroupReport:
    """Of a whole model in the engine's own process, which never waits for another stage."""
    assert core.pid is not None  # it has loaded the model
    layers = range(facts.spec.num_layers)
    rank = RankFigures(Place(0, 1, 0, 1), core.pid, layers, facts.weight_bytes, facts.limits.kv_bytes)
    return GroupReport((rank,), (layers,), GroupFigures((0.0,), 0.0))
