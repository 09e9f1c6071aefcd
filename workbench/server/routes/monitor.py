"""GET /v1/monitor/queues, /v1/monitor/batches and /v1/monitor/workers."""

from __future__ import annotations

import asyncio
import threading

from fastapi import APIRouter, Request

from workbench.engine import EngineStats
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.monitor import BatchReply, BatchStats, QueueReply, QueueStats, WorkerInfo, WorkerReply
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["watch"])

_ENGINE_THREAD = "workbench-engine"


@router.get("/v1/monitor/queues", response_model=QueueReply)
async def read_queues(request: Request) -> QueueReply:
    """How many requests wait, and where."""
    parts = services(request)
    stats = await _stats(request)
    size = parts.queue.num_waiting + stats.num_waiting
    line = QueueStats(size=size, workers=_num_engines())
    return QueueReply(
        completion_queues=line,
        chat_queues=line,
        waiting_for_room=parts.queue.num_waiting,
        waiting_in_engine=stats.num_waiting,
        running=stats.num_running,
        total_requests=stats.requests_total,
    )


@router.get("/v1/monitor/batches", response_model=BatchReply)
async def read_batches(request: Request) -> BatchReply:
    """How large the engine's batches are."""
    parts = services(request)
    stats = await _stats(request)
    return BatchReply(
        batch_stats=BatchStats(
            total_batches=stats.steps_total,
            total_requests=stats.requests_total,
            avg_batch_size=round(stats.generated_tokens_total / stats.steps_total, 3) if stats.steps_total else 0.0,
            avg_processing_time=parts.metrics.mean_answer_s,
        ),
        active_workers=_num_engines(),
        worker_status={name: info.status for name, info in _workers().items()},
    )


@router.get("/v1/monitor/workers", response_model=WorkerReply)
async def read_workers(request: Request) -> WorkerReply:
    """The threads of engine and server."""
    workers = _workers()
    return WorkerReply(workers=workers, total_workers=len(workers))


async def _stats(request: Request) -> EngineStats:
    return await asyncio.to_thread(services(request).host.stats) or EngineStats()


def _num_engines() -> int:
    return sum(thread.name == _ENGINE_THREAD for thread in threading.enumerate())


def _workers() -> dict[str, WorkerInfo]:
    """Our threads by name; a name that several have is numbered."""
    workers: dict[str, WorkerInfo] = {}
    for thread in threading.enumerate():
        if thread.name.startswith("workbench-"):
            name = thread.name if thread.name not in workers else f"{thread.name}-{len(workers)}"
            workers[name] = WorkerInfo(status="running", thread_id=thread.ident, daemon=thread.daemon)
    return workers
