"""What a decoder layer, the embedding and the head cost on a device, measured before a pipeline is cut into stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from workbench.distributed.model_share import Absent, layers_of
from workbench.distributed.place import layer_spans
from workbench.shell import allocate, place, quiet_transformers, restore_buffers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["StageCosts", "measure_costs"]

# A decode step of a small batch: what stages do most of the time.
_NUM_ROWS = 8
_NUM_ROUNDS = 3
# A GPU sleeps so long, 30 to 50 ms, while it is told what to do: it then does it without gaps, as graphs do.
_HEAD_START_CYCLES = 60_000_000
# Layers are timed in a row until they hold this much, so that no cache keeps them from one round to the next.
_TIMED_BYTES = 512 * 1024**2


@dataclass(frozen=True)
class StageCosts:
    """Seconds of one decode step: each layer's, the embedding's (on the first stage) and the head's (on the last)."""

    layers_s: tuple[float, ...]
    embedding_s: float
    head_s: float

    def spans(self, num_stages: int) -> list[range]:
        """Which layers each stage holds so that the slowest is as quick as can be. ConfigError as `layer_spans`."""
        first, *others = self.layers_s
        return layer_spans([first + self.embedding_s, *others], num_stages, last_cost=self.head_s)

    def __str__(self) -> str:
        mean_ms = 1000 * sum(self.layers_s) / len(self.layers_s)
        return f"a layer takes {mean_ms:.2f} ms, the head {1000 * self.head_s:.2f}"


def measure_costs(shell: PreTrainedModel, device: str) -> StageCosts:
    """Time a whole model's parts with made-up weights, which end with this call. `shell` is on torch's meta device, and
    is of no use afterwards.

    Layers of the same shapes count as equal, and as many of them are timed as tell the true speed of the memory.
    Raises OutOfMemoryError where not even a layer and the vocabulary fit.
    """
    layers = layers_of(shell)
    kinds: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        kinds[tuple((name, p.shape) for name, p in layer.named_parameters())].append(index)
    timed = [members[: _num_timed(layers[members[0]], len(kinds))] for members in kinds.values()]
    kept = {index: layers[index] for members in timed for index in members}
    for index in range(len(layers)):
        if index not in kept:
            layers[index] = Absent()
    _fill(shell, device)
    embedding, head = shell.get_input_embeddings(), shell.get_output_embeddings()
    ids = torch.arange(_NUM_ROWS, device=device).unsqueeze(0)
    with torch.inference_mode():
        hidden: torch.Tensor = embedding(ids)
        logits = torch.empty(_NUM_ROWS, head.weight.shape[0], dtype=torch.float32)

        def forward() -> None:
            shell.base_model(inputs_embeds=hidden, position_ids=ids, use_cache=False)

        def seconds_with(members: Sequence[int]) -> float:
            for index, layer in kept.items():
                layers[index] = layer if index in members else Absent()
            return _seconds(forward, device)

        without_s = seconds_with(())
        layers_s = [0.0] * len(layers)
        for members, equal in zip(timed, kinds.values(), strict=True):
            one_s = max(0.0, seconds_with(members) - without_s) / len(members)
            for index in equal:
                layers_s[index] = one_s
        # On a CPU with the way to the host, which chooses the tokens there.
        on_cpu = torch.device(device).type == "cpu"
        head_s = _seconds(lambda: logits.copy_(head(hidden)[0]) if on_cpu else head(hidden), device)
        return StageCosts(tuple(layers_s), _seconds(lambda: embedding(ids), device), head_s)


def _num_timed(layer: nn.Module, num_kinds: int) -> int:
    return max(1, _TIMED_BYTES // num_kinds // max(1, sum(p.nbytes for p in layer.parameters())))


def _fill(shell: PreTrainedModel, device: str) -> None:
    """Any numbers that a processor takes its usual time for."""
    with quiet_transformers():
        for name, parameter in list(shell.named_parameters()):
            place(shell, name, allocate(tuple(parameter.shape), parameter.dtype, device).fill_(0.01))
        restore_buffers(shell, device)


def _seconds(run: Callable[[], object], device: str) -> float:
    """The quickest of a few runs, after one that does not count."""
    return min([_once(run, device) for _ in range(1 + _NUM_ROUNDS)][1:])


def _once(run: Callable[[], object], device: str) -> float:
    if torch.device(device).type != "cuda":
        started_s = time.perf_counter()
        run()
        return time.perf_counter() - started_s
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda._sleep(_HEAD_START_CYCLES)
        begun.record()
        run()
        ended.record()
        ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1000
