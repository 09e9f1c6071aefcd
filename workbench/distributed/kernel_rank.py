"""A rank that computes with the GPU's own kernels: packed steps in, chosen tokens out, some steps ahead."""

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
import torch.distributed as dist

from workbench.distributed.model_share import ModelShare
from workbench.distributed.place import share as span_of
from workbench.distributed.rank_messages import Chosen, KernelStep, StepDone
from workbench.distributed.stage_link import StageLink
from workbench.distributed.tensor_group import TensorGroup
from workbench.engine.attention import LayerShape
from workbench.engine.config import EngineLimits
from workbench.engine.paged_step import KVPool
from workbench.engine.runner_choice import kernels_unavailable_reason
from workbench.engine.step_packer import StepKind, StepShapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from workbench.engine.device_steps import DeviceSteps
    from workbench.engine.fused_decoder import FusedDecoder

__all__ = ["KernelRank", "why_eager"]


def why_eager(module: PreTrainedModel, device: str, layers: dict[int, LayerShape]) -> str | None:
    """What keeps a share from the GPU's own kernels, in words; None if nothing does."""
    # On a CPU they run under Triton's interpreter, for tests.
    obstacle = None if device == "cpu" else kernels_unavailable_reason(device, layers)
    if obstacle is not None:
        return obstacle
    from workbench.engine.fused_weights import why_not

    return why_not(module)


@dataclass(frozen=True)
class _InFlight:
    """A step on its way: `wait()` gives its tokens, none where a later stage chooses them, and `busy_s()` then the
    seconds that it took; a lane where `logits` [rows, vocab] are wanted there."""

    number: int
    wait: Callable[[], list[int]]
    busy_s: Callable[[], float]
    lane: int
    logits: torch.Tensor | None


class KernelRank:
    """Holds a share's weights, pool and graphs. Makes all of them at once; the graphs are captured by all ranks
    together. At most `num_in_flight` steps come before the first of them is answered. The first rank of a stage answers
    for all, since each of them does the same; the last stage chooses the tokens. `words` say how it computes.
    """

    def __init__(
        self, module: PreTrainedModel, share: ModelShare, group: TensorGroup, pool: KVPool, device: str,
        limits: EngineLimits, num_in_flight: int, tokens_group: dist.ProcessGroup | None = None,
    ) -> None:  # fmt: skip
        place = share.place
        self._answers, self._chooses = place.tensor_rank == 0, place.is_last_stage
        self._device = device
        shapes = StepShapes.of(limits)
        first_key = next(iter(pool.keys.values()))
        hidden_size = module.config.get_text_config().hidden_size
        most_tokens = shapes.layouts[StepKind.MIXED].max_tokens
        self._link = StageLink(
            place,
            most_tokens,
            hidden_size,
            first_key.dtype,
            device,
            num_slots=num_in_flight,
            max_chosen=limits.max_num_seqs,
            tokens_group=tokens_group,
        )
        decoder = _decoder(module, share, group, pool, limits)
        self.words = decoder.words
        self._steps = _device_steps(decoder, share, pool, device, limits, self._link, num_in_flight)
        on_gpu = torch.device(device).type == "cuda"
        num_ints = max(layout.num_ints for layout in shapes.layouts.values())
        self._buffers = [torch.zeros(num_ints, dtype=torch.int32, pin_memory=on_gpu) for _ in range(num_in_flight + 1)]
        self._turn = 0
        if on_gpu:
            self._steps.capture()

    def serve(self, connection: Connection, shared: torch.Tensor) -> None:
        """Compute steps until the connection ends (EOFError). `shared` [lanes, rows, vocab] takes logits."""
        launched: SimpleQueue[_InFlight] = SimpleQueue()
        threading.Thread(
            target=_answer,
            args=(launched, connection, shared, self._chooses),
            name="workbench-rank-answers",
            daemon=True,
        ).start()
        while True:
            message: KernelStep = connection.recv()
            in_flight = self._launch(message)
            if self._answers:
                launched.put(in_flight)

    def _launch(self, message: KernelStep) -> _InFlight:
        self._turn = (self._turn + 1) % len(self._buffers)
        ints = self._buffers[self._turn][: len(message.ints)]
        ints.numpy()[:] = message.ints
        step = replace(message.step, ints=ints)
        self._link.await_tokens(step.fed_slots)
        self._link.receive(step.size)
        begun = _Moment(self._device)
        out = self._steps.run(step)
        ended = _Moment(self._device)
        self._link.send(out)
        self._link.exchange_tokens(step.slot, self._steps.chosen(step.num_sampled))
        # A later step overwrites what a graph gives.
        logits = out.clone() if message.wants_logits and self._chooses else None
        wait = self._steps.fetch(step.num_sampled if self._chooses else 0)

        def busy_s() -> float:
            return ended.since(begun)

        return _InFlight(message.number, wait, busy_s, message.lane, logits)


class _Moment:
    """When a device comes to this place of its work; on a CPU that is now."""

    def __init__(self, device: str) -> None:
        self._event: torch.cuda.Event | None = None
        self._now_s = time.perf_counter()
        if torch.device(device).type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()

    def since(self, earlier: _Moment) -> float:
        """Seconds between two moments, once the device has passed this one; waits for that."""
        if self._event is None or earlier._event is None:
            return self._now_s - earlier._now_s
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000


def _decoder(module: Any, share: ModelShare, group: TensorGroup, pool: KVPool, limits: EngineLimits) -> FusedDecoder:
    from workbench.engine.fused_decoder import FusedDecoder, VocabularyShare

    peers = group if group.size > 1 else None
    vocabulary = None
    if peers is not None:
        widths = [len(span_of(share.vocab_size, rank, group.size)) for rank in range(group.size)]
        vocabulary = VocabularyShare(widths, share.vocab_span.start)
    return FusedDecoder(module, pool, limits.max_context, limits.max_num_seqs, peers=peers, vocabulary=vocabulary)


def _device_steps(
    decoder: FusedDecoder, share: ModelShare, pool: KVPool, device: str, limits: EngineLimits, link: StageLink,
    num_in_flight: int,
) -> DeviceSteps:  # fmt: skip
    from workbench.engine.device_steps import DeviceSteps, Neighbours

    return DeviceSteps(
        decoder,
        StepShapes.of(limits),
        limits,
        device,
        next(iter(pool.keys.values())).shape[2],
        num_in_flight=num_in_flight,
        neighbours=Neighbours(link.incoming, link.fed, not share.place.is_last_stage),
    )


def _answer(launched: SimpleQueue[_InFlight], connection: Connection, shared: torch.Tensor, chooses: bool) -> None:
    """In a thread of its own, so that the next step is launched while this one is waited for."""
    with contextlib.suppress(OSError):  # whoever asked is gone
        while True:
            step = launched.get()
            token_ids = step.wait()
            if step.logits is not None:
                shared[step.lane, : len(step.logits)].copy_(step.logits)
            busy_s = step.busy_s()
            connection.send(Chosen(step.number, token_ids, busy_s) if chooses else StepDone(step.number, busy_s))
