"""Runs a model as a `GPUConfig` says: groups of ranks, and several such groups behind a balancer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.backends import Backend
from workbench.distributed.group_figures import GroupFigures, RankFigures
from workbench.distributed.group_launch import GroupLaunch
from workbench.distributed.joined_status import JoinedStatus
from workbench.distributed.nursery import RankNursery
from workbench.distributed.pooled_client import PooledClient
from workbench.distributed.precision import check_precision
from workbench.distributed.running_group import LoadingGroup, RunningGroup
from workbench.engine import EngineStats
from workbench.engine.client import EngineClient
from workbench.engine.config import OVER_SEVERAL_DEVICES, EngineConfig, EngineLimits, refuse_drafts
from workbench.engine.isolation.choice import IsolationChoice, choose_isolation
from workbench.engine.launch import EngineFacts, EngineLaunch, Launch
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import ConfigError, EngineStoppedError
from workbench.models import Tokenizer
from workbench.models.model_code import import_model_code
from workbench.parallel import GPUConfig
from workbench.plugins import PluginManager
from workbench.progress import ProgressCallback, no_progress

__all__ = ["ParallelEngine", "ReplicaFigures"]


@dataclass(frozen=True)
class ReplicaFigures:
    """One group of ranks. `death` is what it died of, None while it lives; `tokens_per_s` is of the last five
    seconds."""

    replica_id: int
    is_alive: bool
    death: EngineStoppedError | None
    devices: tuple[int | str, ...]
    ranks: tuple[RankFigures, ...]
    pipeline: GroupFigures
    num_in_flight: int
    requests_total: int
    tokens_per_s: float


class ParallelEngine:
    """One or more groups of processes behind one client. `isolation` says where their engines run: here, or each in a
    process of its own, which is then also the only process of a group of one: a copy of the whole model, which can be
    whatever one device can have.

    `launch` is what one device would run, and `device_indexes` are the backend's, one per id in `config.gpu_ids`; on
    the CPU the ids only number the ranks. Making one starts the processes; `client.stop()` ends them. Raises what
    `build_group` and EngineLaunch raise.
    """

    def __init__(
        self,
        launch: EngineLaunch,
        backend: Backend,
        device_indexes: Sequence[int],
        config: GPUConfig,
        *,
        plugins: PluginManager | None = None,
        progress: ProgressCallback = no_progress,
    ) -> None:
        engine = launch.config
        if engine.engine_name != "paged":
            raise ConfigError(f"engine_name={engine.engine_name!r}: runs on one device; leave parallel out")
        refuse_drafts(engine, OVER_SEVERAL_DEVICES)
        if engine.cpu_offload_layers:
            raise ConfigError("cpu_offload_layers: over several devices every rank holds its share; leave it out")
        self.config = config
        self._files = launch.files
        self._whole = replace(launch, config=replace(engine, memory_fraction=config.memory_fraction))
        self._backend = backend
        self._device_indexes = list(device_indexes)
        self._plugins = plugins
        self._progress = progress
        self._nursery = RankNursery() if backend.device_type == "cpu" else None
        self.isolation = _isolation(engine, backend, config)
        if self.isolation.mode == "thread" or not config.shape.is_whole:
            check_precision(launch.quantization)
        self._groups: dict[int, RunningGroup] = {}
        self._joined = JoinedStatus(f"{config.shape.data} replicas ({config.load_balancing})")
        self._loading: dict[int, LoadingGroup] = {}
        self.client: EngineClient | PooledClient
        try:
            self.client = self._start_all()
        except BaseException:
            for loading in self._loading.values():
                loading.cancel()
            raise

    @property
    def facts(self) -> EngineFacts:
        """The model's facts and all groups' limits and bytes."""
        return replace(self._groups[0].facts, limits=self.limits, weight_bytes=self.weight_bytes)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self._groups[0].tokenizer

    @property
    def limits(self) -> EngineLimits:
        """Those of all groups together; `max_context` is one request's."""
        one, count = self._groups[0].facts.limits, self.config.shape.data
        return replace(
            one,
            num_blocks=one.num_blocks * count,
            kv_bytes=one.kv_bytes * count,
            max_num_seqs=one.max_num_seqs * count,
        )

    @property
    def weight_bytes(self) -> int:
        """Of all ranks of all groups."""
        return sum(rank.weight_bytes for group in self._groups.values() for rank in group.report().ranks)

    @property
    def status(self) -> RunnerStatus:
        """How it is computed, in words that follow what each group's engine says."""
        return self._groups[0].status if self.config.shape.data == 1 else self._joined.status

    @property
    def degraded_reason(self) -> str | None:
        """Which replicas are down, in words; None while all run."""
        down = [r.replica_id for r in self.replicas() if not r.is_alive]
        return f"replicas {down} of {self.config.shape.data} have stopped" if down else None

    def replicas(self) -> list[ReplicaFigures]:
        """The groups as they are now."""
        client = self.client
        if isinstance(client, PooledClient):
            # The balancer's counts, which go on when a replica is started anew.
            figures = client.pool_stats().replicas
            counts = {int(one.replica_id): (one.num_in_flight, one.requests_total) for one in figures}
        else:
            counts = {0: (len(client.in_flight()), client.requests_total)}
        return [self._figures(replica_id, *counts[replica_id]) for replica_id in self._groups]

    def stats(self) -> dict[int, EngineStats]:
        """Each living group's own counters, by replica. May wait for a step to end."""
        if isinstance(self.client, PooledClient):
            return self.client.stats_by_replica()
        try:
            return {0: self.client.stats()}
        except EngineStoppedError:
            return {}

    def _figures(self, replica_id: int, num_in_flight: int, requests_total: int) -> ReplicaFigures:
        group = self._groups[replica_id]
        client, report = group.client, group.report()
        return ReplicaFigures(
            replica_id=replica_id,
            is_alive=client.is_alive,
            death=client.death,
            devices=tuple(self._ids_of(replica_id)),
            ranks=report.ranks,
            pipeline=report.pipeline,
            num_in_flight=num_in_flight,
            requests_total=requests_total,
            tokens_per_s=client.tokens_per_s,
        )

    def _ids_of(self, replica_id: int) -> list[int | str]:
        size = self.config.num_gpus // self.config.shape.data
        return self.config.gpu_ids[replica_id * size : (replica_id + 1) * size]

    def _start_all(self) -> EngineClient | PooledClient:
        num_groups = self.config.shape.data
        if self._is_isolated:
            # Their processes load side by side; each is waited for in turn. Stages are cut as the first ones are.
            at_once = num_groups if self.config.shape.pipeline == 1 else 1
            self._loading = {replica_id: self._load_apart(replica_id) for replica_id in range(at_once)}
        if num_groups == 1:
            return self._start_group(0)
        return PooledClient(self._start_group, range(num_groups), balancer=self.config.load_balancing)

    @property
    def _is_isolated(self) -> bool:
        return self.isolation.mode == "process"

    def _start_group(self, replica_id: int) -> EngineClient:
        group = self._isolated(replica_id) if self._is_isolated else self._started_here(replica_id)
        self._groups[replica_id] = group
        if self.config.shape.data > 1:
            self._joined.follow(replica_id, group.status)
        return group.client

    def _isolated(self, replica_id: int) -> RunningGroup:
        loading = self._loading.pop(replica_id, None) or self._load_apart(replica_id)
        group = loading.wait(self._files, self._plugins, self._progress)
        if group.facts.embedding is not None and self.config.shape.data > 1:
            group.client.stop()
            raise ConfigError(f"{self._files.name} makes embeddings, which is done on one device: leave parallel out")
        return group

    def _load_apart(self, replica_id: int) -> LoadingGroup:
        return LoadingGroup(self._launch(replica_id), self._name_of(replica_id) or "the engine")

    def _name_of(self, replica_id: int) -> str:
        num_groups = self.config.shape.data
        return f"replica {replica_id} of {num_groups}" if num_groups > 1 else ""

    def _launch(self, replica_id: int) -> Launch:
        """What a process builds: a whole model by itself, or ranks."""
        if not self.config.shape.is_whole:
            return self._group_launch(replica_id)
        engine = self._whole.config
        if self._backend.device_type == "cpu" and engine.num_threads is None:
            num_cores = self._backend.device(0).num_cores
            engine = replace(engine, num_threads=max(1, num_cores // self.config.shape.data))
        return replace(self._whole, device_index=self._device_indexes[replica_id], config=engine)

    def _group_launch(self, replica_id: int) -> GroupLaunch:
        shape = self.config.shape
        size = shape.tensor * shape.pipeline
        indexes = self._device_indexes[replica_id * size : (replica_id + 1) * size]
        # All alike, also one that is started anew beside others at work.
        known = next((group.report().spans for group in self._groups.values()), None)
        return GroupLaunch(
            files=self._files,
            backend_name=self._backend.name,
            device_indexes=tuple(indexes),
            tensor_size=shape.tensor,
            num_stages=shape.pipeline,
            dtype=self._whole.dtype,
            config=self._whole.config,
            num_groups=shape.data,
            name=self._name_of(replica_id),
            spans=known,
        )

    def _started_here(self, replica_id: int) -> RunningGroup:
        import_model_code(self._progress)
        # The engine itself loads torch.
        from workbench.distributed.start import start_group_engine

        return start_group_engine(
            self._group_launch(replica_id),
            self._backend,
            plugins=self._plugins,
            nursery=self._nursery,
            progress=self._progress,
        )


def _isolation(engine: EngineConfig, backend: Backend, config: GPUConfig) -> IsolationChoice:
    """As for one device, but that copies of the whole model are processes on a CPU too, where nothing else is asked."""
    choice = choose_isolation(engine, backend)
    if choice.mode == "thread" and engine.isolation is None and config.shape.is_whole:
        # Not where the backend is an object of this process.
        with contextlib.suppress(ConfigError):
            apart = choose_isolation(replace(engine, isolation="process"), backend)
            return replace(apart, reason="every copy of the model is a process of its own")
    if choice.mode == "thread":
        return replace(choice, reason="the loop runs here, its ranks are processes")
    return choice
