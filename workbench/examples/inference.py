"""The ways to ask one model: one prompt, several at once, piece by piece; what it runs on, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError, WorkbenchError
from workbench.examples.answers import ask_all

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["InferenceDemo"]


class InferenceDemo:
    """Each method shows one thing."""

    def __init__(self, llm: LlamaGPU, max_tokens: int = 64) -> None:
        self._llm = llm
        self._max_tokens = max_tokens

    def single(self, prompt: str) -> str:
        """One continuation."""
        return self._llm.infer(prompt, max_tokens=self._max_tokens)

    def batch(self, prompts: Sequence[str], batch_size: int | None = None) -> list[str]:
        """Several in one batch, in their order."""
        return self._llm.batch_infer(list(prompts), batch_size=batch_size, max_tokens=self._max_tokens)

    def stream(self, prompt: str) -> Iterator[str]:
        """One, piece by piece."""
        return self._llm.stream_infer(prompt, max_tokens=self._max_tokens)

    def backend_info(self) -> dict[str, object]:
        """What the model runs on, why, and what is known of an EC2 instance."""
        return self._llm.get_backend_info()

    def benchmark(self, prompt: str, iterations: int = 3) -> dict[str, Any]:
        """Times of `iterations` answers one after the other, and of as many at once; seconds and tokens/s."""
        if iterations < 1:
            raise RequestError(f"iterations={iterations}: must be at least 1")
        request = {"prompt": prompt, "max_tokens": self._max_tokens, "ignore_eos": True}
        ask_all(self._llm, [request])
        alone = [ask_all(self._llm, [request])[0].timings for _ in range(iterations)]
        started_s = time.perf_counter()
        together = ask_all(self._llm, [request] * iterations)
        seconds = time.perf_counter() - started_s
        tokens = sum(completion.timings.num_generated_tokens for completion in together)
        return {
            "iterations": iterations,
            "first_token_s": round(statistics.median(timings.ttft_s or 0.0 for timings in alone), 4),
            "decode_tokens_per_s": round(statistics.median(t.decode_tokens_per_s or 0.0 for t in alone), 2),
            "together_tokens_per_s": round(tokens / seconds, 2),
        }

    def errors(self) -> dict[str, str]:
        """What wrong requests are answered with; the model goes on."""
        wrong: dict[str, dict[str, Any]] = {
            "an empty prompt": {"prompt": ""},
            "no tokens": {"prompt": "x", "max_tokens": -1},
        }
        told = {}
        for name, request in wrong.items():
            try:
                self._llm.submit(**request)
            except WorkbenchError as error:
                told[name] = str(error)
        return told
