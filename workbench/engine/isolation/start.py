"""From a launch to a client: the engine in a thread here, or in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.backends import Backend
from workbench.engine.client import EngineClient
from workbench.engine.engines import find_engine
from workbench.engine.isolation.choice import IsolationChoice, choose_isolation
from workbench.engine.isolation.process_core import ProcessCore
from workbench.engine.launch import STARTING, EngineFacts, EngineLaunch, release
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.models import Tokenizer
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.plugins import PluginManager
from workbench.progress import ProgressCallback

if TYPE_CHECKING:
    from workbench.engine.vllm.start import VLLMShape

__all__ = ["RunningEngine", "start_running"]


@dataclass(frozen=True)
class RunningEngine:
    """A client to a running engine, and what is known of the engine."""

    client: EngineClient
    facts: EngineFacts
    tokenizer: Tokenizer
    runner_status: RunnerStatus
    isolation: IsolationChoice


def start_running(
    launch: EngineLaunch,
    backend: Backend,
    plugins: PluginManager,
    progress: ProgressCallback,
    shape: VLLMShape | None = None,
) -> RunningEngine:
    """Load the model and run its engine where `launch.config.isolation` and the backend say; `shape` is for vllm.

    Raises what loading raises, also in another process, and what `progress` raises; then nothing stays allocated, and
    no process is left.
    """
    isolation = choose_isolation(launch.config, backend)
    if launch.config.engine_name == "vllm":
        from workbench.engine.vllm.start import start_vllm

        started = start_vllm(launch, plugins, shape)
        return RunningEngine(started.client, started.facts, started.tokenizer, started.runner_status, isolation)
    start = {"thread": _start_here, "process": _start_in_process}[isolation.mode]
    return start(launch, backend, plugins, progress, isolation)


def _start_here(
    launch: EngineLaunch,
    backend: Backend,
    plugins: PluginManager,
    progress: ProgressCallback,
    isolation: IsolationChoice,
) -> RunningEngine:
    loaded = launch.load(progress, backend)
    options: dict[str, Any] = {"low_bit": launch.low_bit, "plugins": plugins}
    try:
        if launch.draft_files is not None:
            options["draft"] = launch.load_draft(progress, backend)
        progress(STARTING)
        start = find_engine(plugins, launch.config.engine_name)
        started = start(loaded, backend, launch.device_index, launch.config, **options)
    except BaseException:
        del loaded, options
        release(backend)
        raise
    facts = EngineFacts.of(loaded, started.limits, getattr(started, "draft", None))
    return RunningEngine(started.client, facts, loaded.tokenizer, started.runner_status, isolation)


def _start_in_process(
    launch: EngineLaunch,
    backend: Backend,
    plugins: PluginManager,
    progress: ProgressCallback,
    isolation: IsolationChoice,
) -> RunningEngine:
    core = ProcessCore(launch)
    try:
        # While the child imports and loads.
        tokenizer = load_doors_tokenizer(launch.files)
        facts = core.wait_until_launched(progress).facts
        client = EngineClient(
            core.connect,
            max_context=facts.limits.max_context,
            vocab_size=facts.spec.vocab_size,
            structures=core,
            plugins=RequestPlugins(plugins),
        )
    except BaseException:
        core.kill()
        core.stop()
        raise
    return RunningEngine(client, facts, tokenizer, core.runner_status, isolation)
