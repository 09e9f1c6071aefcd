"""Builds an engine whose model lies in several processes, one per device or share of the CPU's cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from workbench.backends import Backend, torch_dtype
from workbench.distributed.group_figures import GroupReport, RankFigures
from workbench.distributed.group_launch import GroupLaunch
from workbench.distributed.group_runner import GroupRunner
from workbench.distributed.kernel_group_runner import KernelGroupRunner
from workbench.distributed.model_share import layers_of
from workbench.distributed.nursery import RankNursery
from workbench.distributed.place import Place, check_tensor_size, layer_spans
from workbench.distributed.rank_group import RankFailure, RankGroup
from workbench.distributed.rank_messages import Allocate, Job, Loaded, Measure
from workbench.distributed.shared_table import SharedTable
from workbench.distributed.stages import Stages
from workbench.engine.build import structure_compiler
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, EngineLimits, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.engine import Engine
from workbench.engine.grammar import StructureCompiler
from workbench.engine.launch import EngineFacts
from workbench.engine.messages import Fail, Reply
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import ConfigError, EngineStoppedError
from workbench.models import LoadedModel, Tokenizer
from workbench.models.loader import load_shell
from workbench.plugins import PluginManager
from workbench.progress import Progress, ProgressCallback, no_progress

__all__ = ["BuiltGroup", "StartedGroup", "build_group", "start_group_engine"]

# Steps in flight per stage of a pipeline: with one each, a stage would wait while the host chooses tokens.
_LANES_PER_STAGE = 2
# With the GPU's own kernels the last stage chooses them, and more steps would read the weights more often.
_KERNEL_LANES_PER_STAGE = 1


@dataclass(frozen=True)
class BuiltGroup:
    """An engine that is ready to run, the facts of its model (whose module has no weights), and its ranks. `spans` are
    the layers of each stage."""

    engine: Engine
    limits: EngineLimits
    structures: StructureCompiler
    status: RunnerStatus
    loaded: LoadedModel
    ranks: tuple[RankFigures, ...]
    spans: tuple[range, ...]
    group: RankGroup
    runner: GroupRunner | KernelGroupRunner

    @property
    def facts(self) -> EngineFacts:
        """What is known of the engine."""
        return EngineFacts.of(self.loaded, self.limits)

    def report(self) -> GroupReport:
        """Of its ranks, as they are now."""
        return GroupReport(self.ranks, self.spans, self.runner.figures)

    def watch(self, core: EngineCore) -> None:
        """Have the loop, which has been started, told when the ranks die."""
        self.group.on_failure(lambda failure: _tell(core, failure))


@dataclass(frozen=True)
class StartedGroup:
    """See RunningGroup: a group whose engine runs in a thread here."""

    client: EngineClient
    built: BuiltGroup

    @property
    def facts(self) -> EngineFacts:
        return self.built.facts

    @property
    def tokenizer(self) -> Tokenizer:
        return self.built.loaded.tokenizer

    @property
    def status(self) -> RunnerStatus:
        return self.built.status

    def report(self) -> GroupReport:
        return self.built.report()


def start_group_engine(
    launch: GroupLaunch,
    backend: Backend,
    *,
    plugins: PluginManager | None = None,
    nursery: RankNursery | None = None,
    progress: ProgressCallback = no_progress,
) -> StartedGroup:
    """Build a group as `build_group` does, and run its engine in a thread of this process."""
    built = build_group(launch, backend, plugins=plugins, nursery=nursery, progress=progress)

    def connect(emit: Callable[[Reply], None]) -> EngineCore:
        core = EngineCore(built.engine, emit, num_threads=1, on_end=built.group.stop)
        core.start()
        built.watch(core)
        return core

    client = EngineClient(
        connect,
        max_context=built.limits.max_context,
        vocab_size=built.loaded.spec.vocab_size,
        structures=built.structures,
        plugins=RequestPlugins(plugins) if plugins is not None else None,
        # Unlike those of any other group, so that several can be watched as one.
        id_prefix=f"req-{built.group.process_ids[0]}",
    )
    return StartedGroup(client, built)


def build_group(
    launch: GroupLaunch,
    backend: Backend,
    *,
    plugins: PluginManager | None = None,
    nursery: RankNursery | None = None,
    progress: ProgressCallback = no_progress,
) -> BuiltGroup:
    """Start a group's processes, load the model's shares in them, and put an engine in front of them.

    `plugins` has what requests may name; `nursery` forks the ranks, on the CPU only. Raises ConfigError for sizes that
    do not divide the model, ModelFormatError for one that cannot be split, and OutOfMemoryError; then no process stays.
    """
    loaded = load_shell(launch.files, dtype=launch.dtype)
    _check_sizes(loaded, launch)
    places = Place.all(launch.num_stages, launch.tensor_size)
    on_gpu = backend.device_type != "cpu"
    uses_kernels = on_gpu if launch.uses_kernels is None else launch.uses_kernels
    num_threads = None if on_gpu else _threads_per_rank(backend, launch.config, len(places) * launch.num_groups)
    devices = [backend.torch_device(index if on_gpu else 0) for index in launch.device_indexes]
    at_work = Progress("start processes", 0, None, "ranks")
    progress(at_work)
    group = RankGroup.start([_rank_name(launch.name, place, len(places)) for place in places], nursery)
    try:
        # They may be told to stop while they load.
        ask = partial(progress, at_work)
        measure = Measure(launch.files, loaded.dtype, devices[0], num_threads)
        # A GPU reads its own memory: the first stage of several has a copy there.
        table = None if uses_kernels else SharedTable.of(loaded.module, loaded.dtype, launch.num_stages)
        if table is not None:
            table.make(group.shared_fd)
        stages = Stages.choose(group, measure, len(layers_of(loaded.module)), launch.num_stages, launch.spans, ask)
        most_tokens = launch.config.max_num_batched_tokens or (8192 if on_gpu else 1)
        for place, device in zip(places, devices, strict=True):
            job = Job(
                place=place,
                layers=stages.spans[place.stage],
                files=launch.files,
                dtype=loaded.dtype,
                device=device,
                meeting_file=group.meeting_file,
                num_threads=num_threads,
                warm_up_tokens=min(most_tokens, loaded.spec.max_context),
                uses_kernels=uses_kernels,
                table=table,
            )
            group.send(place.rank, job)
        return _build(group, launch, stages, table, loaded, backend, plugins, ask)
    except BaseException:
        group.stop()
        raise


def _build(
    group: RankGroup,
    launch: GroupLaunch,
    stages: Stages,
    table: SharedTable | None,
    loaded: LoadedModel,
    backend: Backend,
    plugins: PluginManager | None,
    while_waiting: Callable[[], object],
) -> BuiltGroup:
    on_gpu = backend.device_type != "cpu"
    num_stages, tensor_size = launch.num_stages, launch.tensor_size
    places = Place.all(num_stages, tensor_size)
    shares: list[Loaded] = group.receive_from_all(while_waiting)
    loaded.weight_bytes = sum(share.weight_bytes for share in shares)
    limits = _limits(shares, loaded, on_gpu, launch.config, launch.num_groups)
    runner: GroupRunner | KernelGroupRunner
    obstacle = next((share.why_eager for share in shares if share.why_eager is not None), None)
    if obstacle is None:
        runner = KernelGroupRunner(
            group,
            limits,
            loaded.spec.vocab_size,
            num_stages=num_stages,
            num_lanes=_KERNEL_LANES_PER_STAGE * num_stages,
        )
    else:
        runner = GroupRunner(
            group,
            num_stages=num_stages,
            tensor_size=tensor_size,
            num_lanes=_LANES_PER_STAGE * num_stages if num_stages > 1 else 1,
            max_rows=max(limits.max_num_batched_tokens, limits.max_num_seqs),
            vocab_size=loaded.spec.vocab_size,
            logits_begin_bytes=0 if table is None else table.num_bytes,
        )
    group.send_all(Allocate(limits, runner.logits_shape, uses_kernels=obstacle is None))
    ready = group.receive_from_all(while_waiting)
    figures = tuple(
        RankFigures(place, process_id, share.layers, share.weight_bytes, rank_ready.kv_bytes)
        for place, process_id, share, rank_ready in zip(places, group.process_ids, shares, ready, strict=True)
    )
    words = f"{len(places)} processes on {backend.name}: {num_stages} stages of {tensor_size} tensor ranks"
    if num_stages > 1:
        words += f", {stages}"
    if obstacle is None:
        # One row is one kernel at best where the head is.
        words += f", captured graphs of {ready[-1].words}"
    elif on_gpu:
        words += f", eager: {obstacle}"
    structures = structure_compiler(loaded.tokenizer, loaded.spec.vocab_size, loaded.eos_token_ids)
    engine = Engine(
        runner,
        limits,
        decode=loaded.tokenizer.decode,
        vocab_size=loaded.spec.vocab_size,
        eos_token_ids=loaded.eos_token_ids,
        weight_bytes=loaded.weight_bytes,
        structures=structures,
        plugins=plugins,
    )
    return BuiltGroup(engine, limits, structures, RunnerStatus(words), loaded, figures, stages.spans, group, runner)


def _rank_name(group_name: str, place: Place, num_ranks: int) -> str:
    """What errors call a rank: the replica alone where that is one process."""
    return ", ".join(filter(None, (group_name, place.name if num_ranks > 1 or not group_name else "")))


def _tell(core: EngineCore, failure: RankFailure) -> None:
    try:
        core.send(Fail(failure.reason, failure.ended_process))
    except EngineStoppedError:
        # It found out by itself.
        return


def _check_sizes(loaded: LoadedModel, launch: GroupLaunch) -> None:
    model: Any = loaded.module.config.get_text_config()
    heads, config = model.num_attention_heads, launch.config
    kv_heads = getattr(model, "num_key_value_heads", None) or heads
    check_tensor_size(loaded.files.name, heads, kv_heads, launch.tensor_size)
    if launch.num_stages > 1:
        layer_spans([1.0] * len(layers_of(loaded.module)), launch.num_stages)
    if config.engine_name != "paged":
        raise ConfigError(f"engine_name={config.engine_name!r} runs on one device: leave parallel out")
    if config.kv_dtype is not None:
        raise ConfigError(f"kv_dtype={config.kv_dtype!r} needs a single device: leave it out")
    if loaded.embedding is not None:
        raise ConfigError(f"{loaded.files.name} makes embeddings, which is done on one device: leave parallel out")


def _threads_per_rank(backend: Backend, config: EngineConfig, num_ranks: int) -> int:
    return config.num_threads or max(1, backend.device(0).num_cores // num_ranks)


def _limits(
    shares: Sequence[Loaded], loaded: LoadedModel, on_gpu: bool, config: EngineConfig, num_groups: int
) -> EngineLimits:
    """As for one device; the pool is the ranks' together, and the fullest rank says how large it may be."""
    element_bytes = torch_dtype(loaded.dtype).itemsize
    bytes_per_token = sum(share.kv_elements_per_token for share in shares) * element_bytes
    if on_gpu:
        rooms = [
            max(0, int(s.total_bytes * config.memory_fraction) - (s.total_bytes - s.free_bytes))
            // (s.kv_elements_per_token * element_bytes)
            for s in shares
        ]
        free_bytes = min(rooms) * bytes_per_token
    else:
        free_bytes = min(share.free_bytes for share in shares) // num_groups
    return resolve_limits(
        config,
        on_gpu=on_gpu,
        model_max_context=loaded.spec.max_context,
        kv_bytes_per_token=bytes_per_token,
        free_bytes=free_bytes,
    )
