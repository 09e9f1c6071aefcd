"""What a model that is spread over devices does now, as plain values: for the documented names, routes and pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.errors import EngineStoppedError
from workbench.parallel import GPUUse

if TYPE_CHECKING:
    from workbench.distributed.parallel_engine import ReplicaFigures
    from workbench.engine import EngineStats
    from workbench.llm import LlamaGPU

__all__ = ["SpreadStats", "spread_stats", "use_by_gpu"]

_State = Literal["running", "degraded", "dead", "unloaded"]


@dataclass(frozen=True)
class SpreadStats:
    """`state` is "running", "degraded" (less serves than was asked for), "dead" or "unloaded", and `reason` why it is
    not running, None while it is. Requests count for the first GPU of the replica that has them, loads for each of its
    GPUs.
    """

    state: _State
    reason: str | None
    gpu_config: dict[str, object]
    load_balancing: dict[str, object]
    loads: dict[int | str, float]
    replicas: list[dict[str, object]]


def spread_stats(llm: LlamaGPU) -> SpreadStats:
    """Figures of a model that was loaded with `parallel`, alive or dead. May wait for a step to end."""
    state, reason = _state(llm)
    config, replicas = llm.parallel, llm.replicas()
    if config is None or not replicas:
        # One process does it all, for want of GPUs or with an engine that tells nothing of its ranks.
        counts: dict[str, object] = {"total_requests": _num_requests(llm), "gpu_assignments": {}, "gpu_loads": {}}
        return SpreadStats(state, reason, {}, counts, {}, [])
    own, use = llm.replica_stats(), _use(llm, replicas)
    assigned = {replica.devices[0]: replica.requests_total for replica in replicas}
    loads = {gpu_id: one.load for gpu_id, one in use.items()}
    return SpreadStats(
        state=state,
        reason=reason,
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
        replicas=[_replica_values(replica, own.get(replica.replica_id)) for replica in replicas],
    )


def use_by_gpu(llm: LlamaGPU) -> dict[int | str, GPUUse]:
    """What a spread model does on each of its GPUs, without waiting for a step."""
    return _use(llm, llm.replicas())


def _use(llm: LlamaGPU, replicas: list[ReplicaFigures]) -> dict[int | str, GPUUse]:
    most = max(1, llm.limits.max_num_seqs // max(1, len(replicas)))
    return {
        gpu_id: GPUUse(
            num_in_flight=replica.num_in_flight,
            requests_total=replica.requests_total if gpu_id == replica.devices[0] else 0,
            load=min(1.0, replica.num_in_flight / most),
        )
        for replica in replicas
        for gpu_id in replica.devices
    }


def _state(llm: LlamaGPU) -> tuple[_State, str | None]:
    death = llm.death
    if death is not None:
        return "dead", str(death)
    if not llm.is_loaded:
        return "unloaded", "the model is unloaded"
    reason = llm.degraded_reason
    return ("running", None) if reason is None else ("degraded", reason)


def _num_requests(llm: LlamaGPU) -> int | None:
    """None where nobody is left to tell."""
    try:
        return llm.stats().requests_total
    except EngineStoppedError:
        return None


def _replica_values(replica: ReplicaFigures, stats: EngineStats | None) -> dict[str, object]:
    death = replica.death
    return {
        "replica_id": replica.replica_id,
        "is_alive": replica.is_alive,
        "ended": None if death is None else death.ended_process or "its engine has stopped",
        "gpu_ids": list(replica.devices),
        "num_in_flight": replica.num_in_flight,
        "requests_total": replica.requests_total,
        "tokens_per_s": round(replica.tokens_per_s, 1),
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
