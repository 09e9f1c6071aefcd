"""Steps on a GPU, as they come packed: decodes as captured graphs, one per batch size; short prompts too; the rest as
it comes. The token that a step chooses is fed to the next one on the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from workbench.engine.config import EngineLimits
from workbench.engine.device_step import DeviceStaging, DeviceStep, HostStaging
from workbench.engine.kernels.copy_ints import copy_ints
from workbench.engine.kernels.feed_ids import feed_ids
from workbench.engine.kernels.paged_decode import num_splits
from workbench.engine.kernels.sample_tokens import sample_tokens
from workbench.engine.kernels.tiles import CHUNK_QUERIES, GUESS_QUERIES
from workbench.engine.step_packer import PackedStep, StepKind, StepShapes

__all__ = ["Decoder", "DeviceSteps", "Neighbours"]

# Few rows, a number that 16 does not divide, and one that it does: other mixes need no further kernels.
_MIXED_SIZES = (10, 43, 128)


class Decoder(Protocol):
    """A model that computes a step."""

    def forward(self, step: DeviceStep) -> torch.Tensor: ...

    def one_layer_of_each_kind(self) -> AbstractContextManager[None]:
        """Within, `forward` computes what takes all its kernels and as little else as it can; it means nothing."""
        ...


@dataclass(frozen=True)
class Neighbours:
    """What a stage of a pipeline has beside it. `incoming` [tokens, hidden] is where the stage before leaves hidden
    states, None for the first stage, which gets chosen tokens in `fed` [slots * rows]; `has_next` says whether the
    stage after takes hidden states and chooses the tokens."""

    incoming: torch.Tensor | None
    fed: torch.Tensor | None
    has_next: bool


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    out: torch.Tensor


class DeviceSteps:
    """Until `capture()` has run, and always on a CPU under Triton's interpreter, steps run uncaptured.

    `shapes` are those of whoever packs the steps, at most `num_in_flight` ahead of what has been fetched. A stage of a
    pipeline has `neighbours`; it then gives hidden states where others give logits, and chooses no tokens.
    """

    def __init__(
        self,
        decoder: Decoder,
        shapes: StepShapes,
        limits: EngineLimits,
        device: str,
        num_kv_heads: int,
        *,
        num_in_flight: int = 2,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.decoder = decoder
        self._shapes = shapes
        self._device = device
        self._num_kv_heads = num_kv_heads
        self._max_context = limits.max_context
        self._max_seqs = limits.max_num_seqs
        self._stagings = {kind: DeviceStaging(layout, device) for kind, layout in shapes.layouts.items()}
        max_tokens = max(layout.max_tokens for layout in shapes.layouts.values())
        self._ids = torch.zeros(max_tokens, dtype=torch.int32, device=device)
        self._chosen = torch.zeros(shapes.max_choices, dtype=torch.int32, device=device)
        self._on_gpu = torch.device(device).type == "cuda"
        # Each thread has a current device of its own, and kernels and events go to it.
        self.here = torch.cuda.device(device) if self._on_gpu else nullcontext()
        self._incoming = None if neighbours is None else neighbours.incoming
        self._has_next = neighbours is not None and neighbours.has_next
        # The tokens of the step before; in a pipeline those of the last few come from the last stage.
        self._fed = self._chosen if neighbours is None or neighbours.fed is None else neighbours.fed
        self._hosts = [
            torch.zeros(shapes.max_choices, dtype=torch.int32, pin_memory=self._on_gpu)
            for _ in range(num_in_flight + 1)
        ]
        self._turn = 0
        self._graphs: dict[tuple[StepKind, int], _Captured] = {}
        self._pool: Any = None

    @property
    def sizes(self) -> list[tuple[StepKind, int]]:
        """Those that get a graph, the largest first since the others then fit into its memory."""
        return [(kind, size) for kind, sizes in self._shapes.captured_sizes.items() for size in reversed(sizes)]

    @property
    def sizes_without_graph(self) -> list[int]:
        """Numbers of rows of MIXED steps that need all the kernels which any of those steps needs."""
        return [size for size in _MIXED_SIZES if size <= self._shapes.layouts[StepKind.MIXED].max_tokens]

    def capture(self, report: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Capture every size."""
        for done, (kind, size) in enumerate(self.sizes, 1):
            self.try_out(kind, size)
            self.capture_size(kind, size)
            report(done, len(self.sizes))

    def try_out(self, kind: StepKind, size: int) -> None:
        """Run a step of that size over rows that are all padding, which compiles kernels and picks algorithms."""
        step = partial(self._mixed_padding if kind is StepKind.MIXED else partial(self._padded_step, kind), size)
        with self.here, torch.inference_mode():
            self._load_nothing(kind)
            copy_ints(self._chosen[:1], self._hosts[0][:1])
            if not self._on_gpu:
                step()
                return
            stream = torch.cuda.Stream(self._device)
            stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(stream):
                step()
            torch.cuda.current_stream(self._device).wait_stream(stream)
            torch.cuda.synchronize(self._device)

    def capture_size(self, kind: StepKind, size: int) -> None:
        """Make the graph of a size that has been tried out, any but MIXED."""
        with self.here, torch.inference_mode():
            self._graphs[kind, size] = self._capture(partial(self._padded_step, kind, size))

    def graph(self, kind: StepKind, size: int) -> torch.cuda.CUDAGraph:
        """The captured graph of a size, to be timed by itself. KeyError where there is none."""
        return self._graphs[kind, size].graph

    def run(self, step: PackedStep) -> torch.Tensor:
        """Put a step on the device's queue; logits [num_rows, vocab]. Its tokens are chosen too. Before another stage
        hidden states [size, hidden]."""
        with self.here:
            return self._run(step)

    def _run(self, step: PackedStep) -> torch.Tensor:
        staging = self._stagings[step.kind]
        copy_ints(step.ints, staging.place(step.ints.shape[0]))
        if step.kind is StepKind.MIXED:
            return self._run_mixed(staging, step)
        captured = self._graphs.get((step.kind, step.size))
        if captured is not None:
            captured.graph.replay()
            out = captured.out
        else:
            out = self._padded_step(step.kind, step.size)
        return out if self._has_next else out[: step.num_rows]

    def fetch(self, count: int) -> Callable[[], list[int]]:
        """Start copying the chosen tokens to the host; the result waits for the copy."""
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        with self.here:
            copy_ints(self._chosen[:count], host[:count])
            arrived = torch.cuda.Event() if self._on_gpu else None
            if arrived is not None:
                arrived.record()

        def wait() -> list[int]:
            if arrived is not None:
                arrived.synchronize()
            token_ids: list[int] = host[:count].tolist()
            return token_ids

        return wait

    def chosen(self, count: int) -> torch.Tensor:
        """The tokens that the last step chose [count], until the next one."""
        return self._chosen[:count]

    def choose(self, token_ids: list[int]) -> None:
        """Take these for the tokens that the last step chose."""
        chosen = torch.tensor(token_ids, dtype=torch.int32)
        self._chosen[: len(token_ids)].copy_(chosen, non_blocking=True)

    def pick_sampled(self, step: PackedStep, logits: torch.Tensor) -> torch.Tensor:
        """Of a step's logits, those after which a token is chosen."""
        if step.sampled_rows is None:
            return logits
        return logits[torch.tensor(step.sampled_rows, device=logits.device)]

    def _run_mixed(self, staging: DeviceStaging, step: PackedStep) -> torch.Tensor:
        kept = torch.tensor(step.kept, dtype=torch.int64).to(self._device, non_blocking=True)
        out = self.decoder.forward(self._step(staging, step.size, step.num_decodes, step.num_tiles, kept))
        if step.num_sampled and not self._has_next:
            self._sample(staging, self.pick_sampled(step, out))
        return out

    def _step(
        self,
        staging: DeviceStaging,
        num_tokens: int,
        num_decodes: int,
        num_tiles: int,
        kept: torch.Tensor | None = None,
        num_guess_tiles: int = 0,
    ) -> DeviceStep:
        ids = self._ids[:num_tokens]
        if self._incoming is None:
            known, source_rows = staging.section("known_id", num_tokens), staging.section("source_row", num_tokens)
            feed_ids(known, source_rows, self._fed, ids)
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
            # Tiles with guesses are full in the best case, in which there are fewest.
            splits=num_splits(
                max(1, num_decodes, -(-num_tokens // GUESS_QUERIES) if num_guess_tiles else 0),
                self._num_kv_heads,
                self._max_context,
            ),
            guesses=staging.section("tiles", num_guess_tiles * 4).view(-1, 4) if num_guess_tiles else None,
            hidden=None if self._incoming is None else self._incoming[:num_tokens],
        )

    def _finish(self, staging: DeviceStaging, out: torch.Tensor) -> torch.Tensor:
        """Choose the tokens of a captured step, unless the stage after this one does."""
        if not self._has_next:
            self._sample(staging, out)
        return out

    def _sample(self, staging: DeviceStaging, logits: torch.Tensor) -> None:
        rows = logits.shape[0]
        params = staging.section("sampling", rows * 5).view(torch.float32).view(-1, 5)
        sample_tokens(logits, params, self._chosen[:rows], greedy=False)

    def _padded_step(self, kind: StepKind, size: int) -> torch.Tensor:
        """A step of a kind and size that get a graph, over its staging's tensors."""
        if kind is StepKind.PROMPT:
            return self._prompt_step(size)
        return self._guess_step(size) if kind is StepKind.GUESSES else self._decode_step(size)

    def _decode_step(self, size: int) -> torch.Tensor:
        """A step of `size` decodes over its staging's tensors; returns the logits."""
        staging = self._stagings[StepKind.DECODES]
        return self._finish(staging, self.decoder.forward(self._step(staging, size, size, 0)))

    def _guess_step(self, size: int) -> torch.Tensor:
        """A step of `size` rows, decodes and guesses after them, over its staging's tensors; returns the logits."""
        staging, num_tiles = self._stagings[StepKind.GUESSES], self._shapes.num_guess_tiles(size)
        step = self._step(staging, size, 0, 0, num_guess_tiles=num_tiles)
        return self._finish(staging, self.decoder.forward(step))

    def _prompt_step(self, length: int) -> torch.Tensor:
        """A step of one prompt of up to `length` tokens over its staging's tensors; returns its last row's logits."""
        staging = self._stagings[StepKind.PROMPT]
        num_tiles = -(-length // CHUNK_QUERIES)
        step = self._step(staging, length, 0, num_tiles, staging.section("kept", 1))
        return self._finish(staging, self.decoder.forward(step))

    def _mixed_padding(self, size: int) -> torch.Tensor:
        """A step of `size` rows, of which some are decodes and the others a prompt's, with every decode sampled."""
        staging, num_decodes = self._stagings[StepKind.MIXED], max(1, min(size // 4, self._max_seqs))
        kept = torch.arange(num_decodes, device=self._device)
        num_tiles = -(-(size - num_decodes) // CHUNK_QUERIES)
        return self._finish(staging, self.decoder.forward(self._step(staging, size, num_decodes, num_tiles, kept)))

    def _load_nothing(self, kind: StepKind) -> None:
        layout = self._shapes.layouts[kind]
        nothing, _ = HostStaging(layout, pinned=False, num_buffers=1).pack([], [], {}, layout.max_tokens)
        # Not by a kernel, which may not be there: what is computed must be padding in any case.
        self._stagings[kind].place(nothing.shape[0]).copy_(nothing)

    def _capture(self, step: Callable[[], torch.Tensor]) -> _Captured:
        graph = torch.cuda.CUDAGraph()
        # Threads that look after other things (NCCL has one) may call the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = step()
        self._pool = self._pool or graph.pool()
        return _Captured(graph, out)
