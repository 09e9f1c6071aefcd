"""Asks a model many things at once and keeps the order; what it says about speed is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError

if TYPE_CHECKING:
    from workbench.engine import Completion, Generation
    from workbench.llm import LlamaGPU

__all__ = ["Speed", "ask_all", "mean_probability", "user_message"]

# Requests that wait in the engine at once where the caller names no number.
_DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Speed:
    """Tokens of one answer, the seconds from its request to its last token, and where."""

    num_tokens: int
    seconds: float
    backend: str
    gpu_used: bool

    @classmethod
    def of(cls, completion: Completion, llm: LlamaGPU) -> Speed:
        """The engine's own figures: others of the batch that go on longer do not count."""
        timings, on_gpu = completion.timings, llm.backend.device_type != "cpu"
        return cls(timings.num_generated_tokens, timings.total_s, llm.backend.name, on_gpu)

    @property
    def tokens_per_second(self) -> float:
        return round(self.num_tokens / self.seconds, 2) if self.seconds else 0.0


def user_message(text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def ask_all(llm: LlamaGPU, requests: Sequence[Mapping[str, Any]], batch_size: int | None = None) -> list[Completion]:
    """The answers to requests, each the arguments of `llm.submit`, in their order; at most `batch_size` at once."""
    if batch_size is not None and batch_size < 1:
        raise RequestError(f"batch_size={batch_size}: must be at least 1, or None")
    limit = batch_size or _DEFAULT_BATCH
    running: list[Generation] = []
    try:
        for number, request in enumerate(requests):
            if number >= limit:
                running[number - limit].result()
            running.append(llm.submit(**request))
        return [generation.result() for generation in running]
    finally:
        for generation in running:
            generation.abort()


def mean_probability(completion: Completion) -> float | None:
    """The geometric mean of the answer's token probabilities; None for an empty answer or without logprobs."""
    if not completion.logprobs:
        return None
    return round(math.exp(sum(entry.logprob for entry in completion.logprobs) / len(completion.logprobs)), 4)
