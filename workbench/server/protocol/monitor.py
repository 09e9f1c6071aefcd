"""The engine's inner figures on the wire, in the documented field names."""

from __future__ import annotations

from typing import Literal

from workbench.server.protocol.wire import WireReply

__all__ = ["BatchReply", "BatchStats", "QueueReply", "QueueStats", "WorkerInfo", "WorkerReply"]


class QueueStats(WireReply):
    """Requests that wait, and the engine loops that take them."""

    size: int
    workers: int


class QueueReply(WireReply):
    """Chat and completions wait in one line, so both names show the same; below it is split by place."""

    completion_queues: QueueStats
    chat_queues: QueueStats
    waiting_for_room: int
    waiting_in_engine: int
    running: int
    total_requests: int


class BatchStats(WireReply):
    """What the engine's steps were like since it started. `avg_processing_time` is in seconds per answer, null before
    the first one."""

    total_batches: int
    total_requests: int
    avg_batch_size: float
    avg_processing_time: float | None


class BatchReply(WireReply):
    """The steps, and who makes them."""

    batch_stats: BatchStats
    active_workers: int
    worker_status: dict[str, Literal["running", "stopped"]]


class WorkerInfo(WireReply):
    """A thread."""

    status: Literal["running", "stopped"]
    thread_id: int | None
    daemon: bool


class WorkerReply(WireReply):
    """The threads of engine and server."""

    workers: dict[str, WorkerInfo]
    total_workers: int
