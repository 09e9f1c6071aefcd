"""A rank that computes with the GPU's own kernels: packed steps in, chosen tokens out, one step ahead."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import torch

from workbench.distributed.model_share import ModelShare
from workbench.distributed.place import share as span_of
from workbench.distributed.rank_messages import Chosen, KernelStep
from workbench.distributed.tensor_group import TensorGroup
from workbench.engine.attention import LayerShape
from workbench.engine.config import EngineLimits
from workbench.engine.paged_step import KVPool
from workbench.engine.runner_choice import kernels_unavailable_reason
from workbench.engine.step_packer import StepShapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.engine.device_steps import DeviceSteps

__all__ = ["KernelRank", "why_eager"]

# Steps are packed one ahead of the one that is computed.
_NUM_BUFFERS = 3


def why_eager(module: PreTrainedModel, share: ModelShare, device: str, layers: dict[int, LayerShape]) -> str | None:
    """What keeps a share from the GPU's own kernels, in words; None if nothing does."""
    if share.place.num_stages > 1:
        return "a stage of a pipeline hands on hidden states"
    # On a CPU they run under Triton's interpreter, for tests.
    obstacle = None if device == "cpu" else kernels_unavailable_reason(device, layers)
    if obstacle is not None:
        return obstacle
    from workbench.engine.fused_weights import why_not

    return why_not(module)


@dataclass(frozen=True)
class _InFlight:
    """A step on its way: `wait()` gives its tokens; a lane where `logits` [rows, vocab] are wanted there."""

    number: int
    started_s: float
    wait: Callable[[], list[int]]
    lane: int
    logits: torch.Tensor | None


class KernelRank:
    """Holds a share's weights, pool and graphs. Makes all of them at once; the graphs are captured by all ranks
    together. The first rank of a group answers for all, since each of them chooses the same tokens."""

    def __init__(
        self, module: PreTrainedModel, share: ModelShare, group: TensorGroup, pool: KVPool, device: str,
        limits: EngineLimits,
    ) -> None:  # fmt: skip
        self._leads = share.place.tensor_rank == 0
        self._steps = _device_steps(module, share, group, pool, device, limits)
        on_gpu = torch.device(device).type == "cuda"
        num_ints = max(layout.num_ints for layout in StepShapes.of(limits).layouts.values())
        self._buffers = [torch.zeros(num_ints, dtype=torch.int32, pin_memory=on_gpu) for _ in range(_NUM_BUFFERS)]
        self._turn = 0
        if on_gpu:
            self._steps.capture()

    def serve(self, connection: Connection, shared: torch.Tensor) -> None:
        """Compute steps until the connection ends (EOFError). `shared` [lanes, rows, vocab] takes logits."""
        launched: SimpleQueue[_InFlight] = SimpleQueue()
        threading.Thread(
            target=_answer, args=(launched, connection, shared), name="workbench-rank-answers", daemon=True
        ).start()
        while True:
            message: KernelStep = connection.recv()
            in_flight = self._launch(message)
            if self._leads:
                launched.put(in_flight)

    def _launch(self, message: KernelStep) -> _InFlight:
        self._turn = (self._turn + 1) % _NUM_BUFFERS
        ints = self._buffers[self._turn][: len(message.ints)]
        ints.numpy()[:] = message.ints
        step = replace(message.step, ints=ints)
        started_s = time.perf_counter()
        logits = self._steps.run(step)
        # The next step overwrites what a graph gives; nobody asks for logits while one is in flight.
        wanted = logits if message.wants_logits else None
        return _InFlight(message.number, started_s, self._steps.fetch(step.num_sampled), message.lane, wanted)


def _device_steps(
    module: Any, share: ModelShare, group: TensorGroup, pool: KVPool, device: str, limits: EngineLimits
) -> DeviceSteps:
    from workbench.engine.device_steps import DeviceSteps
    from workbench.engine.fused_decoder import FusedDecoder, VocabularyShare

    peers = group if group.size > 1 else None
    vocabulary = None
    if peers is not None:
        widths = [len(span_of(share.vocab_size, rank, group.size)) for rank in range(group.size)]
        vocabulary = VocabularyShare(widths, share.vocab_span.start)
    decoder = FusedDecoder(module, pool, limits.max_context, limits.max_num_seqs, peers=peers, vocabulary=vocabulary)
    return DeviceSteps(decoder, StepShapes.of(limits), limits, device, pool.keys[0].shape[2])


def _answer(launched: SimpleQueue[_InFlight], connection: Connection, shared: torch.Tensor) -> None:
    """In a thread of its own, so that the next step is launched while this one is waited for."""
    ended_s = 0.0
    with contextlib.suppress(OSError):  # whoever asked is gone
        while True:
            step = launched.get()
            token_ids = step.wait()
            if step.logits is not None:
                shared[step.lane, : len(step.logits)].copy_(step.logits)
            begun_s, ended_s = max(step.started_s, ended_s), time.perf_counter()
            connection.send(Chosen(step.number, token_ids, ended_s - begun_s))
