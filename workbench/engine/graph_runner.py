"""Runs steps on a GPU: decodes as captured graphs, one per batch size; short prompts too; the rest as it comes.

The token that a step chooses is fed to the next one on the device; the host learns it later (see Engine.step).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from workbench.engine.config import EngineLimits
from workbench.engine.device_step import DeviceStep, Staging, StepLayout
from workbench.engine.kernels.feed_ids import feed_ids
from workbench.engine.kernels.paged_decode import num_splits
from workbench.engine.kernels.sample_tokens import sample_tokens
from workbench.engine.kernels.tiles import CHUNK_QUERIES
from workbench.engine.runner import LaunchedStep, LogitRows
from workbench.engine.sampler import SampledTokens, sample
from workbench.engine.scheduler import ScheduledSequence, StepPlan
from workbench.engine.sequence import Sequence

__all__ = ["Decoder", "GraphRunner", "batch_buckets"]

# Lengths of a prompt, computed alone, that get a graph: longer ones keep the device busy while they are launched.
_PROMPT_BUCKETS = (16, 32, 64, 128, 192, 256, 384, 512)


class Decoder(Protocol):
    """A model that computes a step."""

    def forward(self, step: DeviceStep) -> torch.Tensor: ...


def batch_buckets(max_seqs: int) -> list[int]:
    """Batch sizes that get a graph: every power of two to 8, then steps of 8, beyond 256 of 32."""
    sizes = [1, 2, 4, *range(8, 257, 8), *range(288, max_seqs + 1, 32)]
    kept = [size for size in sizes if size < max_seqs]
    return [*kept, max_seqs]


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor


class GraphRunner:
    """See Runner. Until `capture()` has run, and always on a CPU under Triton's interpreter, steps run uncaptured."""

    overlaps = True

    def __init__(self, decoder: Decoder, limits: EngineLimits, device: str, num_kv_heads: int) -> None:
        self._decoder = decoder
        self._device = device
        self._num_kv_heads = num_kv_heads
        self._max_context = limits.max_context
        self._buckets = batch_buckets(limits.max_num_seqs)
        blocks_per_sequence = -(-limits.max_context // limits.block_size)
        max_table = limits.max_num_seqs * blocks_per_sequence
        padding_slot = limits.num_blocks * limits.block_size

        def staging(max_tokens: int) -> Staging:
            layout = StepLayout(max_tokens, limits.max_num_seqs, max_table, limits.block_size, padding_slot)
            return Staging(layout, device)

        self._prompt_buckets = [n for n in _PROMPT_BUCKETS if n <= limits.max_num_batched_tokens]
        self._decode_staging = staging(limits.max_num_seqs)
        self._longest = max(self._prompt_buckets, default=0)
        self._prompt_staging = staging(max(self._longest, 1))
        self._mixed_staging = staging(max(limits.max_num_batched_tokens, limits.max_num_seqs))
        self._ids = torch.zeros(self._mixed_staging.layout.max_tokens, dtype=torch.int32, device=device)
        self._chosen = torch.zeros(limits.max_num_seqs, dtype=torch.int32, device=device)
        self._on_gpu = torch.device(device).type == "cuda"
        self._hosts = [torch.zeros(limits.max_num_seqs, dtype=torch.int32, pin_memory=self._on_gpu) for _ in range(3)]
        self._turn = 0
        self._rows_of_last_step: dict[Sequence, int] = {}
        self._graphs: dict[int, _Captured] = {}
        self._prompt_graphs: dict[int, _Captured] = {}
        self._pool: Any = None

    def needs_history(self, sequence: Sequence) -> bool:
        """Whether the next token can only be chosen on the host, from all tokens before it."""
        params = sequence.params
        return bool(params.edits_logits or params.logprobs or params.typical_p < 1.0 or params.structure is not None)

    def capture(self, report: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Capture every size, the largest first since the others then fit into its memory."""
        total = len(self._prompt_buckets) + len(self._buckets)
        with torch.inference_mode():
            for length in reversed(self._prompt_buckets):
                self._prompt_graphs[length] = self._capture(partial(self._prompt_step, length))
                report(len(self._prompt_graphs), total)
            for size in reversed(self._buckets):
                self._graphs[size] = self._capture(partial(self._decode_step, size))
                report(len(self._prompt_graphs) + len(self._graphs), total)

    def launch(self, plan: StepPlan) -> LaunchedStep:
        """Put a step on the device's queue."""
        decodes = [item for item in plan.items if item.num_new_tokens == 1]
        chunks = [item for item in plan.items if item.num_new_tokens > 1]
        items = decodes + chunks
        rows = LogitRows(items)
        # A piece of a prompt may be one token too, and then nothing may be chosen after it.
        if not chunks and len(rows.sampled) == len(items):
            logits = self._replay_decodes(items)
        elif len(items) == 1 and rows.sampled and len(rows.kept) == 1 and items[0].num_new_tokens <= self._longest:
            logits = self._replay_prompt(items[0], rows.kept)
        else:
            logits = self._run_mixed(items, len(decodes), rows)
        sampled = rows.pick_sampled(logits)
        by_host = any(self.needs_history(item.sequence) for item in rows.sampled)
        wait = self._sample_on_host(sampled, rows.sampled) if by_host else self._fetch(len(rows.sampled))
        self._rows_of_last_step = {item.sequence: row for row, item in enumerate(rows.sampled)}
        return LaunchedStep(rows.sampled, wait, rows.pick_scored(logits))

    def _replay_decodes(self, items: list[ScheduledSequence]) -> torch.Tensor:
        size = self._buckets[bisect_left(self._buckets, len(items))]
        self._decode_staging.pack(items, items, self._rows_of_last_step, size)
        captured = self._graphs.get(size)
        if captured is None:
            return self._decode_step(size)[: len(items)]
        captured.graph.replay()
        return captured.logits[: len(items)]

    def _replay_prompt(self, item: ScheduledSequence, kept: list[int]) -> torch.Tensor:
        length = self._prompt_buckets[bisect_left(self._prompt_buckets, item.num_new_tokens)]
        self._prompt_staging.pack([item], [item], self._rows_of_last_step, length, kept)
        captured = self._prompt_graphs.get(length)
        if captured is None:
            return self._prompt_step(length)
        captured.graph.replay()
        return captured.logits

    def _run_mixed(self, items: list[ScheduledSequence], num_decodes: int, rows: LogitRows) -> torch.Tensor:
        staging = self._mixed_staging
        num_tokens = sum(item.num_new_tokens for item in items)
        num_tiles = staging.pack(items, rows.sampled, self._rows_of_last_step, num_tokens)
        kept = torch.tensor(rows.kept, dtype=torch.int64).to(self._device, non_blocking=True)
        step = self._step(staging, num_tokens, num_decodes, num_tiles, kept)
        logits = self._decoder.forward(step)
        if rows.sampled:
            self._sample(staging, rows.pick_sampled(logits))
        return logits

    def _step(
        self, staging: Staging, num_tokens: int, num_decodes: int, num_tiles: int, kept: torch.Tensor | None
    ) -> DeviceStep:
        ids = feed_ids(
            staging.section("known_id", num_tokens),
            staging.section("source_row", num_tokens),
            self._chosen,
            self._ids[:num_tokens],
        )
        return DeviceStep(
            ids=ids,
            positions=staging.section("position", num_tokens),
            slots=staging.section("slot", num_tokens),
            num_decodes=num_decodes,
            lengths=staging.section("length", num_decodes),
            table=staging.table,
            table_starts=staging.section("table_start", num_decodes),
            tiles=staging.section("tiles", num_tiles * 4).view(-1, 4) if num_tiles else None,
            kept=kept,
            splits=num_splits(max(1, num_decodes), self._num_kv_heads, self._max_context),
        )

    def _sample(self, staging: Staging, logits: torch.Tensor) -> None:
        rows = logits.shape[0]
        params = staging.section("sampling", rows * 5).view(torch.float32).view(-1, 5)
        sample_tokens(logits, params, self._chosen[:rows], greedy=False)

    def _decode_step(self, size: int) -> torch.Tensor:
        """A step of `size` decodes over its staging's tensors; returns the logits."""
        logits = self._decoder.forward(self._step(self._decode_staging, size, size, 0, None))
        self._sample(self._decode_staging, logits)
        return logits

    def _prompt_step(self, length: int) -> torch.Tensor:
        """A step of one prompt of up to `length` tokens over its staging's tensors; returns its last row's logits."""
        num_tiles = -(-length // CHUNK_QUERIES)
        kept = self._prompt_staging.section("kept", 1)
        logits = self._decoder.forward(self._step(self._prompt_staging, length, 0, num_tiles, kept))
        self._sample(self._prompt_staging, logits)
        return logits

    def _capture(self, step: Callable[[], torch.Tensor]) -> _Captured:
        """A step as a graph; the run before it compiles kernels and picks algorithms."""
        for staging, rows in ((self._decode_staging, len(self._chosen)), (self._prompt_staging, self._longest)):
            staging.pack([], [], {}, rows)
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = step()
        self._pool = self._pool or graph.pool()
        return _Captured(graph, logits)

    def _fetch(self, count: int) -> Callable[[], SampledTokens]:
        """Start copying the chosen tokens to the host; the result waits for the copy."""
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        host[:count].copy_(self._chosen[:count], non_blocking=True)
        arrived = torch.cuda.Event() if self._on_gpu else None
        if arrived is not None:
            arrived.record()

        def wait() -> SampledTokens:
            if arrived is not None:
                arrived.synchronize()
            token_ids = host[:count].tolist()
            return SampledTokens(token_ids, [None] * count, [token_id < 0 for token_id in token_ids])

        return wait

    def _sample_on_host(self, logits: torch.Tensor, items: list[ScheduledSequence]) -> Callable[[], SampledTokens]:
        tokens = sample(logits, [item.sequence for item in items])
        self._chosen[: len(items)].copy_(torch.tensor(tokens.token_ids, dtype=torch.int32), non_blocking=True)
        return lambda: tokens
