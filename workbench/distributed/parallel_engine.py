"""Runs a model as a `GPUConfig` says: groups of ranks, and several such groups behind a balancer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.backends import Backend
from workbench.distributed.group_figures import GroupFigures
from workbench.distributed.nursery import RankNursery
from workbench.distributed.pooled_client import PooledClient
from workbench.distributed.start import RankFigures, StartedGroup, start_group_engine
from workbench.engine import EngineStats
from workbench.engine.client import EngineClient
from workbench.engine.config import OVER_SEVERAL_DEVICES, EngineConfig, EngineLimits, refuse_drafts
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import ConfigError, EngineStoppedError
from workbench.models import LoadedModel, ModelFiles
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
    """One or more groups of processes behind one client.

    `device_indexes` are the backend's, one per id in `config.gpu_ids`; on the CPU the ids only number the ranks. Making
    one starts the processes; `client.stop()` ends them. Raises what `start_group_engine` raises.
    """

    def __init__(
        self,
        files: ModelFiles,
        backend: Backend,
        device_indexes: Sequence[int],
        config: GPUConfig,
        *,
        dtype: str,
        engine: EngineConfig,
        plugins: PluginManager | None = None,
        progress: ProgressCallback = no_progress,
    ) -> None:
        refuse_drafts(engine, OVER_SEVERAL_DEVICES)
        if engine.cpu_offload_layers:
            raise ConfigError("cpu_offload_layers: over several devices every rank holds its share; leave it out")
        self.config = config
        self._files = files
        self._backend = backend
        self._device_indexes = list(device_indexes)
        self._dtype = dtype
        self._engine = replace(engine, memory_fraction=config.memory_fraction)
        self._plugins = plugins
        self._progress = progress
        self._nursery = RankNursery() if backend.device_type == "cpu" else None
        self._groups: dict[int, StartedGroup] = {}
        num_groups = config.shape.data
        self.client: EngineClient | PooledClient
        if num_groups == 1:
            self.client = self._start_group(0)
        else:
            self.client = PooledClient(self._start_group, range(num_groups), balancer=config.load_balancing)

    @property
    def loaded(self) -> LoadedModel:
        """The model's facts; its module has no weights."""
        return self._groups[0].loaded

    @property
    def limits(self) -> EngineLimits:
        """Those of all groups together; `max_context` is one request's."""
        one, count = self._groups[0].engine.limits, self.config.shape.data
        return replace(
            one,
            num_blocks=one.num_blocks * count,
            kv_bytes=one.kv_bytes * count,
            max_num_seqs=one.max_num_seqs * count,
        )

    @property
    def weight_bytes(self) -> int:
        """Of all ranks of all groups."""
        return sum(rank.weight_bytes for group in self._groups.values() for rank in group.ranks)

    @property
    def status(self) -> RunnerStatus:
        """How it is computed, in words."""
        shape = self.config.shape
        copies = f"{shape.data} replicas ({self.config.load_balancing}) of " if shape.data > 1 else ""
        return RunnerStatus(f"{copies}{self._groups[0].engine.runner_status}")

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
        client = group.engine.client
        return ReplicaFigures(
            replica_id=replica_id,
            is_alive=client.is_alive,
            death=client.death,
            devices=tuple(self._ids_of(replica_id)),
            ranks=group.ranks,
            pipeline=group.runner.figures,
            num_in_flight=num_in_flight,
            requests_total=requests_total,
            tokens_per_s=client.tokens_per_s,
        )

    def _ids_of(self, replica_id: int) -> list[int | str]:
        size = self.config.num_gpus // self.config.shape.data
        return self.config.gpu_ids[replica_id * size : (replica_id + 1) * size]

    def _start_group(self, replica_id: int) -> EngineClient:
        shape = self.config.shape
        size = shape.tensor * shape.pipeline
        group = start_group_engine(
            self._files,
            self._backend,
            self._device_indexes[replica_id * size : (replica_id + 1) * size],
            tensor_size=shape.tensor,
            num_stages=shape.pipeline,
            dtype=self._dtype,
            config=self._engine,
            num_groups=shape.data,
            name=f"replica {replica_id} of {shape.data}" if shape.data > 1 else "",
            # All alike, also one that is started anew beside others at work.
            spans=next((other.spans for other in self._groups.values()), None),
            plugins=self._plugins,
            nursery=self._nursery,
            progress=self._progress,
        )
        self._groups[replica_id] = group
        return group.engine.client
