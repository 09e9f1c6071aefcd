"""From what `LlamaGPU` was asked to a running model: one engine here, over several processes, or many on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.device_choice import DeviceChoice
from workbench.distributed.cluster.config import ClusterConfig
from workbench.engine.isolation.choice import IsolationChoice
from workbench.engine.isolation.start import start_running
from workbench.engine.launch import EngineFacts, EngineLaunch
from workbench.errors import ConfigError
from workbench.models import Tokenizer
from workbench.parallel import GPUConfig
from workbench.parallel.spread import Spread
from workbench.plugins import PluginManager
from workbench.progress import ProgressCallback

if TYPE_CHECKING:
    from workbench.distributed.cluster.application import ReplicaApplication
    from workbench.distributed.parallel_engine import ParallelEngine
    from workbench.distributed.pooled_client import PooledClient
    from workbench.engine.client import EngineClient
    from workbench.engine.runner_status import RunnerStatus
    from workbench.engine.vllm.start import VLLMShape

__all__ = ["ModelStart", "RunningModel"]


@dataclass(frozen=True)
class RunningModel:
    """A client to what runs, and what is known of it. `ranks` or `application` is who knows of processes elsewhere."""

    client: EngineClient | PooledClient
    facts: EngineFacts
    tokenizer: Tokenizer
    runner_status: RunnerStatus
    isolation: IsolationChoice
    ranks: ParallelEngine | None = None
    application: ReplicaApplication | None = None


@dataclass(frozen=True)
class ModelStart:
    """A checked launch and where it goes: `cluster` before the choice's spread, that before one device.

    `replica_options` are those of a `LlamaGPU` that a machine of the cluster makes.
    """

    launch: EngineLaunch
    choice: DeviceChoice
    cluster: ClusterConfig | None
    replica_options: Mapping[str, Any]

    @property
    def is_planned(self) -> bool:
        """Whether it is one engine of ours on one device here, which is what a plan before loading is about."""
        return self.cluster is None and self._parallel is None and not self._uses_vllm

    def run(self, plugins: PluginManager, progress: ProgressCallback) -> RunningModel:
        """Load and start. Raises what loading raises; then nothing stays allocated and no process is left."""
        spread = self.choice.spread
        if self.cluster is not None and spread is not None:
            return self._run_vllm_over_cluster(self.cluster, spread, plugins)
        if self.cluster is not None:
            return self._run_on_cluster(self.cluster, plugins, progress)
        if spread is not None and spread.config is not None and not self._uses_vllm:
            return self._run_over_ranks(spread, spread.config, plugins, progress)
        return self._run_here(plugins, progress)

    @property
    def _parallel(self) -> GPUConfig | None:
        """None too where one device is all that there was of several."""
        return None if self.choice.spread is None else self.choice.spread.config

    @property
    def _uses_vllm(self) -> bool:
        return self.launch.config.engine_name == "vllm"

    @property
    def _vllm_launch(self) -> EngineLaunch:
        """With the share of each GPU that the spread has."""
        assert self._parallel is not None  # who calls has looked
        config = replace(self.launch.config, memory_fraction=self._parallel.memory_fraction)
        return replace(self.launch, config=config)

    def _run_on_cluster(
        self, cluster: ClusterConfig, plugins: PluginManager, progress: ProgressCallback
    ) -> RunningModel:
        from workbench.distributed.cluster.start import start_cluster

        launch = self.launch
        started = start_cluster(
            launch.files, cluster, self.replica_options, engine=launch.config, plugins=plugins, progress=progress
        )
        isolation = IsolationChoice("process", "every replica is a process of the cluster")
        return RunningModel(
            started.client,
            started.facts,
            started.tokenizer,
            started.runner_status,
            isolation,
            application=started.application,
        )

    def _run_vllm_over_cluster(self, cluster: ClusterConfig, spread: Spread, plugins: PluginManager) -> RunningModel:
        from workbench.distributed.cluster.vllm_ranks import start_vllm_ranks

        started = start_vllm_ranks(self._vllm_launch, cluster, _vllm_shape(spread, on_ray=True), plugins)
        isolation = IsolationChoice("process", "every rank is a process of the cluster")
        return RunningModel(started.client, started.facts, started.tokenizer, started.runner_status, isolation)

    def _run_over_ranks(
        self, spread: Spread, config: GPUConfig, plugins: PluginManager, progress: ProgressCallback
    ) -> RunningModel:
        from workbench.distributed.parallel_engine import ParallelEngine

        engine = ParallelEngine(
            self.launch, spread.backend, spread.device_indexes, config, plugins=plugins, progress=progress
        )
        return RunningModel(
            engine.client, engine.facts, engine.tokenizer, engine.status, engine.isolation, ranks=engine
        )

    def _run_here(self, plugins: PluginManager, progress: ProgressCallback) -> RunningModel:
        spread = self.choice.spread
        shape = None if spread is None or spread.config is None else _vllm_shape(spread)
        launch = self.launch if shape is None else self._vllm_launch
        started = start_running(launch, self.choice.backend, plugins, progress, shape)
        return RunningModel(started.client, started.facts, started.tokenizer, started.runner_status, started.isolation)


def _vllm_shape(spread: Spread, on_ray: bool = False) -> VLLMShape:
    from workbench.engine.vllm.start import VLLMShape

    config = spread.config
    assert config is not None  # who calls has looked
    if config.shape.data > 1:
        raise ConfigError(f"strategy={config.strategy.value!r}: the vllm engine is one copy; use cluster for several")
    return VLLMShape(config.shape.tensor, config.shape.pipeline, on_ray, spread.device_indexes)
