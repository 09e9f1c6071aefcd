"""The documented names for a model over several GPUs: each of them loads the model so spread, and runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.llm import LlamaGPU
from workbench.parallel import GPUConfig, LoadBalancer, MultiGPUManager, ParallelismStrategy

if TYPE_CHECKING:
    from workbench.distributed.parallel_engine import ReplicaFigures
    from workbench.engine import EngineStats

__all__ = ["MultiGPUInference", "PipelineParallelism", "SpreadStats", "TensorParallelism", "spread_stats"]


@dataclass(frozen=True)
class SpreadStats:
    """What a spread model does now, as plain values; devices are named by each replica's first GPU."""

    gpu_config: dict[str, object]
    load_balancing: dict[str, object]
    loads: dict[int | str, float]
    replicas: list[dict[str, object]]


def spread_stats(llm: LlamaGPU) -> SpreadStats:
    """Figures of a model that was loaded with `parallel`. May wait for a step to end."""
    config, replicas, stats, own = llm.parallel, llm.replicas(), llm.stats(), llm.replica_stats()
    if config is None:
        return SpreadStats({}, {"total_requests": stats.requests_total, "gpu_assignments": {}, "gpu_loads": {}}, {}, [])
    most = max(1, llm.limits.max_num_seqs // len(replicas))
    counts = {r.devices[0]: (r.num_in_flight, r.requests_total) for r in replicas}
    if len(replicas) == 1:
        # No balancer counts where there is nothing to choose.
        counts = {replicas[0].devices[0]: (stats.num_running + stats.num_waiting, stats.requests_total)}
    loads = {gpu_id: min(1.0, num_in_flight / most) for gpu_id, (num_in_flight, _) in counts.items()}
    assigned = {gpu_id: total for gpu_id, (_, total) in counts.items()}
    return SpreadStats(
        gpu_config={
            "gpu_ids": list(config.gpu_ids),
            "strategy": config.strategy.value,
            "tensor_parallel_size": config.shape.tensor,
            "pipeline_parallel_size": config.shape.pipeline,
            "data_parallel_size": config.shape.data,
            "memory_fraction": config.memory_fraction,
            "load_balancing": config.load_balancing,
        },
        load_balancing={
            "total_requests": sum(assigned.values()),
            "gpu_assignments": assigned,
            "gpu_loads": loads,
        },
        loads=loads,
        replicas=[_replica_values(r, *counts[r.devices[0]], own.get(r.replica_id)) for r in replicas],
    )


def _replica_values(
    replica: ReplicaFigures, num_in_flight: int, requests_total: int, stats: EngineStats | None
) -> dict[str, object]:
    return {
        "replica_id": replica.replica_id,
        "is_alive": replica.is_alive,
        "gpu_ids": list(replica.devices),
        "num_in_flight": num_in_flight,
        "requests_total": requests_total,
        "generated_tokens_total": stats.generated_tokens_total if stats is not None else None,
        "bubble_share": round(replica.pipeline.bubble_share, 4),
        "ranks": [
            {
                "stage": rank.place.stage,
                "tensor_rank": rank.place.tensor_rank,
                "process_id": rank.process_id,
                "layers": [rank.layers.start, rank.layers.stop],
                "weight_bytes": rank.weight_bytes,
                "kv_bytes": rank.kv_bytes,
            }
            for rank in replica.ranks
        ],
    }


class MultiGPUInference:
    """A model over the GPUs of a config, whatever its strategy.

    Args:
        model: what `LlamaGPU` takes as `model_path`: "default", a folder, a hub id, "random:<preset>".
        gpu_config: which GPUs, and how.
        degrade: use what is there of the GPUs.
        options: further keywords of `LlamaGPU`, such as `quant_type` or `prefer_gpu=False`.

    Use as a context manager, or `stop()` in the end. Raises what `LlamaGPU` raises.
    """

    def __init__(self, model: str | Path, gpu_config: GPUConfig, *, degrade: bool = False, **options: object) -> None:
        if not isinstance(model, str | Path):
            raise ConfigError(
                f"model={type(model).__name__}: must be a name or a folder, since every process loads its own share; "
                "save a model in memory with save_pretrained first"
            )
        self.gpu_manager = MultiGPUManager(gpu_config, degrade=degrade)
        self.load_balancer = LoadBalancer(self.gpu_manager)
        self.parallel_engine = LlamaGPU(model, parallel=gpu_config, degrade=degrade, **options)

    def generate(self, prompt: str | Sequence[int], max_tokens: int | None = 100, **sampling: object) -> str:
        """The model's continuation of a prompt. Sampling keywords are the fields of `SamplingParams`."""
        return self.parallel_engine.infer(prompt, max_tokens=max_tokens, **sampling)

    def batch_generate(self, prompts: Sequence[str], max_tokens: int | None = 100, **sampling: object) -> list[str]:
        """Continuations of several prompts at once, in their order."""
        return self.parallel_engine.batch_infer(prompts, max_tokens=max_tokens, **sampling)

    def stream(self, prompt: str, max_tokens: int | None = 100, **sampling: object) -> Iterator[str]:
        """The continuation piece by piece; leaving the loop stops the model."""
        return self.parallel_engine.stream_infer(prompt, max_tokens, **sampling)

    def get_stats(self) -> dict[str, object]:
        """`gpu_config`, `load_balancing` and `gpu_metrics` as documented.

        Counts are requests by replica: `total_requests`, `gpu_assignments` and `gpu_loads` (share of the batch in use),
        with each replica's first GPU as the key. `gpu_metrics.memory` is None where there is no GPU to read.
        """
        stats, memory = spread_stats(self.parallel_engine), self._memory()
        return {
            "gpu_config": stats.gpu_config,
            "load_balancing": {**stats.load_balancing, "gpu_memory": memory},
            "gpu_metrics": {"loads": stats.loads, "memory": memory},
        }

    def optimize(self) -> list[int]:
        """Start replicas anew that have stopped; their numbers."""
        stopped = [replica.replica_id for replica in self.parallel_engine.replicas() if not replica.is_alive]
        for replica_id in stopped:
            self.parallel_engine.restart_replica(replica_id)
        return stopped

    def stop(self) -> None:
        """Unload the model and end its processes. Stopping twice is harmless."""
        self.parallel_engine.unload()

    def __enter__(self) -> MultiGPUInference:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _memory(self) -> dict[int | str, float] | None:
        """Share of each GPU's memory in use; None on the CPU."""
        if self.parallel_engine.backend.device_type == "cpu":
            return None
        self.gpu_manager.update_gpu_metrics()
        return dict(self.gpu_manager.gpu_memory)


class TensorParallelism(MultiGPUInference):
    """`MultiGPUInference` for the strategy "tensor": every layer's heads, MLP and vocabulary lie on all GPUs."""

    def __init__(self, model: str | Path, gpu_config: GPUConfig, **options: object) -> None:
        _require(gpu_config, ParallelismStrategy.TENSOR)
        super().__init__(model, gpu_config, **options)


class PipelineParallelism(MultiGPUInference):
    """`MultiGPUInference` for the strategy "pipeline": each GPU has some of the layers."""

    def __init__(self, model: str | Path, gpu_config: GPUConfig, **options: object) -> None:
        _require(gpu_config, ParallelismStrategy.PIPELINE)
        super().__init__(model, gpu_config, **options)

    @property
    def pipeline_stages(self) -> list[range]:
        """Which decoder layers each stage has."""
        (replica,) = self.parallel_engine.replicas()
        return [rank.layers for rank in replica.ranks]

    @property
    def bubble_share(self) -> float:
        """Share of the stages' time, 0 to 1, in which they had nothing to do while requests ran."""
        (replica,) = self.parallel_engine.replicas()
        return replica.pipeline.bubble_share


def _require(config: GPUConfig, strategy: ParallelismStrategy) -> None:
    if config.strategy is not strategy:
        raise ConfigError(f"strategy={config.strategy.value!r}: must be {strategy.value!r} here; see MultiGPUInference")
