"""Starts an engine whose model lies in several processes, one per device or share of the CPU's cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from workbench.backends import Backend, torch_dtype
from workbench.distributed.group_runner import GroupRunner
from workbench.distributed.kernel_group_runner import KernelGroupRunner
from workbench.distributed.model_share import layers_of
from workbench.distributed.nursery import RankNursery
from workbench.distributed.place import Place, check_tensor_size, layer_spans
from workbench.distributed.rank_group import RankFailure, RankGroup
from workbench.distributed.rank_messages import Allocate, Job, Loaded, Measure
from workbench.distributed.shared_table import SharedTable
from workbench.distributed.stages import Stages
from workbench.engine.build import StartedEngine, structure_compiler
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, EngineLimits, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.engine import Engine
from workbench.engine.messages import Fail, Reply
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import ConfigError, EngineStoppedError
from workbench.models import LoadedModel, ModelFiles
from workbench.models.loader import load_shell
from workbench.plugins import PluginManager
from workbench.progress import Progress, ProgressCallback, no_progress

__all__ = ["RankFigures", "StartedGroup", "start_group_engine"]

# Steps in flight per stage of a pipeline: with one each, a stage would wait while the host chooses tokens.
_LANES_PER_STAGE = 2
# With the GPU's own kernels the last stage chooses them, and more steps would read the weights more often.
_KERNEL_LANES_PER_STAGE = 1


@dataclass(frozen=True)
class RankFigures:
    """What one rank holds: decoder layers, and bytes; `process_id` is the system's."""

    place: Place
    process_id: int
    layers: range
    weight_bytes: int
    kv_bytes: int


@dataclass(frozen=True)
class StartedGroup:
    """A running engine, the facts of its model (whose module has no weights), and its ranks. `spans` are the layers of
    each stage."""

    engine: StartedEngine
    loaded: LoadedModel
    ranks: tuple[RankFigures, ...]
    spans: tuple[range, ...]
    group: RankGroup
    runner: GroupRunner | KernelGroupRunner


def start_group_engine(
    files: ModelFiles,
    backend: Backend,
    device_indexes: Sequence[int],
    *,
    tensor_size: int,
    num_stages: int,
    dtype: str,
    config: EngineConfig,
    num_groups: int = 1,
    name: str = "",
    spans: Sequence[range] | None = None,
    plugins: PluginManager | None = None,
    nursery: RankNursery | None = None,
    progress: ProgressCallback = no_progress,
    uses_kernels: bool | None = None,
) -> StartedGroup:
    """Start `num_stages * tensor_size` processes, load the model's shares in them, and start the engine's thread here.

    `device_indexes` are one per rank; on the CPU they say nothing, and its cores and memory are shared out among the
    ranks of `num_groups` such groups, of which errors call this one by `name`. `spans` are the stages of a group like
    this one; without them the model's parts are timed. `plugins` has what requests may name; `nursery` forks the ranks,
    on the CPU only. `uses_kernels`: compute with the GPU's own kernels, by default on a GPU; on a CPU it needs Triton's
    interpreter.
    Raises ConfigError for sizes that do not divide the model, ModelFormatError for one that cannot be split, and
    OutOfMemoryError; then no process stays.
    """
    loaded = load_shell(files, dtype=dtype)
    _check_sizes(loaded, tensor_size, num_stages, config)
    places = Place.all(num_stages, tensor_size)
    on_gpu = backend.device_type != "cpu"
    uses_kernels = on_gpu if uses_kernels is None else uses_kernels
    num_threads = None if on_gpu else _threads_per_rank(backend, config, len(places) * num_groups)
    devices = [backend.torch_device(index if on_gpu else 0) for index in device_indexes]
    at_work = Progress("start processes", 0, None, "ranks")
    progress(at_work)
    group = RankGroup.start([_rank_name(name, place, len(places)) for place in places], nursery)
    try:
        # They may be told to stop while they load.
        ask = partial(progress, at_work)
        measure = Measure(files, loaded.dtype, devices[0], num_threads)
        # A GPU reads its own memory: the first stage of several has a copy there.
        table = None if uses_kernels else SharedTable.of(loaded.module, loaded.dtype, num_stages)
        if table is not None:
            table.make(group.shared_fd)
        stages = Stages.choose(group, measure, len(layers_of(loaded.module)), num_stages, spans, ask)
        for place, device in zip(places, devices, strict=True):
            job = Job(
                place=place,
                layers=stages.spans[place.stage],
                files=files,
                dtype=loaded.dtype,
                device=device,
                meeting_file=group.meeting_file,
                num_threads=num_threads,
                warm_up_tokens=min(config.max_num_batched_tokens or (8192 if on_gpu else 1), loaded.spec.max_context),
                uses_kernels=uses_kernels,
                table=table,
            )
            group.send(place.rank, job)
        return _start(group, places, stages, table, loaded, backend, config, num_groups, plugins, ask)
    except BaseException:
        group.stop()
        raise


def _start(
    group: RankGroup,
    places: list[Place],
    stages: Stages,
    table: SharedTable | None,
    loaded: LoadedModel,
    backend: Backend,
    config: EngineConfig,
    num_groups: int,
    plugins: PluginManager | None,
    while_waiting: Callable[[], object],
) -> StartedGroup:
    on_gpu = backend.device_type != "cpu"
    num_stages, tensor_size = places[0].num_stages, places[0].tensor_size
    shares: list[Loaded] = group.receive_from_all(while_waiting)
    loaded.weight_bytes = sum(share.weight_bytes for share in shares)
    limits = _limits(shares, loaded, on_gpu, config, num_groups)
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
        words += ", captured graphs of fused kernels"
    elif on_gpu:
        words += f", eager: {obstacle}"
    client = _connect(group, runner, loaded, limits, plugins)
    started = StartedEngine(client, limits, RunnerStatus(words))
    return StartedGroup(started, loaded, figures, stages.spans, group, runner)


def _connect(
    group: RankGroup,
    runner: GroupRunner | KernelGroupRunner,
    loaded: LoadedModel,
    limits: EngineLimits,
    plugins: PluginManager | None,
) -> EngineClient:
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

    def connect(emit: Callable[[Reply], None]) -> EngineCore:
        core = EngineCore(engine, emit, num_threads=1, on_end=group.stop)
        core.start()
        group.on_failure(lambda failure: _tell(core, failure))
        return core

    return EngineClient(
        connect,
        max_context=limits.max_context,
        vocab_size=loaded.spec.vocab_size,
        structures=structures,
        plugins=RequestPlugins(plugins) if plugins is not None else None,
        # Unlike those of any other group, so that several can be watched as one.
        id_prefix=f"req-{group.process_ids[0]}",
    )


def _rank_name(group_name: str, place: Place, num_ranks: int) -> str:
    """What errors call a rank: the replica alone where that is one process."""
    return ", ".join(filter(None, (group_name, place.name if num_ranks > 1 or not group_name else "")))


def _tell(core: EngineCore, failure: RankFailure) -> None:
    try:
        core.send(Fail(failure.reason, failure.ended_process))
    except EngineStoppedError:
        # It found out by itself.
        return


def _check_sizes(loaded: LoadedModel, tensor_size: int, num_stages: int, config: EngineConfig) -> None:
    model: Any = loaded.module.config.get_text_config()
    heads = model.num_attention_heads
    check_tensor_size(loaded.files.name, heads, getattr(model, "num_key_value_heads", None) or heads, tensor_size)
    if num_stages > 1:
        layer_spans([1.0] * len(layers_of(loaded.module)), num_stages)
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
