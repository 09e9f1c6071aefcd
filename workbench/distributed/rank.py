"""`python -m workbench.distributed.rank CONNECTION SHARED`: one rank. Loads its share and computes steps until told.

It leaves when its connection or its standard input ends, which is when the process that started it is gone. A signal
at the parent's death would come at the end of the thread that started it, which may be long before that.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
from multiprocessing.connection import Connection
from typing import cast

import torch
import torch.distributed as dist

from workbench.backends import torch_dtype
from workbench.child_lifetime import exit_with_parent
from workbench.distributed.kernel_rank import KernelRank, why_eager
from workbench.distributed.model_share import ModelShare
from workbench.distributed.place import Place
from workbench.distributed.rank_messages import (
    Allocate,
    Failed,
    Job,
    Loaded,
    LostPeer,
    Measure,
    Ready,
    Step,
    StepDone,
)
from workbench.distributed.shared_logits import map_logits
from workbench.distributed.shared_table import MappedTable
from workbench.distributed.stage_costs import StageCosts, measure_costs
from workbench.distributed.stage_runner import StageRunner, probe_stage
from workbench.distributed.tensor_group import PeerLostError, TensorGroup
from workbench.engine.attention import register_attention
from workbench.engine.paged_step import KVPool
from workbench.engine.step_plan import ScheduledSequence
from workbench.errors import InferenceError, WorkbenchError
from workbench.models import load_model
from workbench.models.load_memory import release_memory
from workbench.models.loader import load_shell
from workbench.models.model_code import import_model_code

__all__ = ["main"]

_log = logging.getLogger(__name__)

# Ranks only wait for each other inside a step; a peer that is gone is noticed at once by its closed connection.
_PEER_LIMIT = datetime.timedelta(minutes=10)


def main(connection: Connection, shared_fd: int) -> None:
    """Serve the process at the other end of `connection`; `shared_fd` is memory shared with it."""
    last_words: LostPeer | Failed
    try:
        _serve(connection, shared_fd)
    except EOFError:
        return
    except PeerLostError as error:
        last_words = LostPeer(str(error))
    except WorkbenchError as error:
        last_words = Failed(error)
    except Exception as error:  # top of the process: whoever waits must hear of it
        _log.exception("a rank failed")
        last_words = Failed(InferenceError(f"{type(error).__name__}: {error}"))
    # Its end must not be seen before its words, nor before that of a peer who was killed.
    with contextlib.suppress(OSError, EOFError):
        connection.send(last_words)
        while True:
            connection.recv()


def _serve(connection: Connection, shared_fd: int) -> None:
    import_model_code()
    first: Job | Measure = connection.recv()
    if isinstance(first, Measure):
        connection.send(_measure(first))
        first = connection.recv()
    assert isinstance(first, Job)
    job = first
    if job.num_threads:
        torch.set_num_threads(job.num_threads)
    group, tokens_group = _meet(job)
    table = None if job.table is None else MappedTable(job.table.map(shared_fd), job.device)
    share = ModelShare(job.place, group, job.layers, table)
    loaded = load_model(
        job.files, device=job.device, dtype=job.dtype, attn_implementation=register_attention(), part=share
    )
    share.borrow_table(loaded.module)
    layers = probe_stage(loaded.module, share, job.device, job.warm_up_tokens)
    elements = sum(shape.elements_per_token for shape in layers.values())
    obstacle = why_eager(loaded.module, job.device, layers) if job.uses_kernels else "not asked for"
    connection.send(Loaded(share.layer_span, loaded.weight_bytes, elements, *_memory(job.device), obstacle))
    wanted: Allocate = connection.recv()
    limits = wanted.limits
    pool = KVPool(layers, limits.num_blocks + 1, limits.block_size, torch_dtype(job.dtype), job.device)
    kv_bytes = sum(t.nbytes for t in (*pool.keys.values(), *pool.values.values()))
    shared = map_logits(shared_fd, wanted.logits_shape, begin_bytes=0 if job.table is None else job.table.num_bytes)
    with torch.inference_mode():
        if wanted.uses_kernels:
            rank = KernelRank(
                loaded.module, share, group, pool, job.device, limits, wanted.logits_shape[0], tokens_group
            )
            connection.send(Ready(kv_bytes, rank.words))
            rank.serve(connection, shared)
        runner = StageRunner(loaded.module, pool, job.device, job.place)
        connection.send(Ready(kv_bytes))
        while True:
            _compute(connection.recv(), runner, share, shared, connection)


def _measure(wanted: Measure) -> StageCosts:
    if wanted.num_threads:
        torch.set_num_threads(wanted.num_threads)
    try:
        return measure_costs(load_shell(wanted.files, dtype=wanted.dtype).module, wanted.device)
    finally:
        release_memory(wanted.device)


def _compute(step: Step, runner: StageRunner, share: ModelShare, shared: torch.Tensor, connection: Connection) -> None:
    started_s, waited_s = time.perf_counter(), runner.waited_s
    # A step's items are all that a runner looks at in scheduled sequences.
    logits = runner.compute(cast("list[ScheduledSequence]", step.items), step.kept)
    if share.place.is_last_stage and step.kept:
        rows = shared[step.lane, : len(step.kept)]
        rows[:, share.vocab_span.start : share.vocab_span.stop].copy_(logits)
    waited_s = runner.waited_s - waited_s
    connection.send(StepDone(step.number, time.perf_counter() - started_s - waited_s))


def _meet(job: Job) -> tuple[TensorGroup, dist.ProcessGroup | None]:
    """Find the other ranks: those of the same stage, and for chosen tokens the first and the last stage's with the same
    part of a layer. Every rank makes every group, as torch demands."""
    place = job.place
    size = place.num_stages * place.tensor_size
    on_gpu = torch.device(job.device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(job.device)
    if size == 1:
        return TensorGroup(), None
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{job.meeting_file}",
        rank=place.rank,
        world_size=size,
        timeout=_PEER_LIMIT,
    )
    tokens_group = None
    if place.num_stages > 1:
        # A group of their own, whose transfers wait for none of hidden states.
        ends = [[rank, size - place.tensor_size + rank] for rank in range(place.tensor_size)]
        tokens_group = [dist.new_group(members, timeout=_PEER_LIMIT) for members in ends][place.tensor_rank]
    if place.tensor_size == 1:
        return TensorGroup(), tokens_group
    ranks = [
        [p.rank for p in Place.all(place.num_stages, place.tensor_size) if p.stage == s]
        for s in range(place.num_stages)
    ]
    groups = [dist.new_group(members, timeout=_PEER_LIMIT) for members in ranks]
    return TensorGroup(place.tensor_rank, place.tensor_size, groups[place.stage]), tokens_group


def _memory(device: str) -> tuple[int, int]:
    """Free and total bytes of the device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)
    from workbench.backends.processor import Processor

    memory = Processor().memory()
    return memory.free_bytes, memory.total_bytes


if __name__ == "__main__":
    exit_with_parent()
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
