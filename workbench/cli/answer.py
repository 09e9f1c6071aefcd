"""A finished answer as a script reads it (JSON) and as a person does (one line of figures)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.engine import Completion, Timings

__all__ = ["answer_json", "timings_line"]


def answer_json(completion: Completion) -> dict[str, Any]:
    """The answer with token counts, finish reason and timings; log-probabilities only where they were asked for."""
    answer: dict[str, Any] = {
        "index": completion.index,
        "text": completion.text,
        "finish_reason": str(completion.finish_reason),
        "stop_reason": completion.stop_reason,
        "num_prompt_tokens": completion.num_prompt_tokens,
        "num_cached_tokens": completion.num_cached_tokens,
        "num_generated_tokens": completion.timings.num_generated_tokens,
        "token_ids": list(completion.token_ids),
        "seed": completion.seed,
        "timings": asdict(completion.timings),
    }
    if completion.logprobs:
        answer["logprobs"] = [asdict(entry) for entry in completion.logprobs]
    if completion.prompt_logprobs is not None:
        answer["prompt_logprobs"] = [entry and asdict(entry) for entry in completion.prompt_logprobs]
    return answer


def timings_line(timings: Timings) -> str:
    """ "24 tokens, 31.5 tokens/s, first after 0.12 s"; what is unknown is left out."""
    parts = [f"{timings.num_generated_tokens} tokens"]
    if timings.decode_tokens_per_s is not None:
        parts.append(f"{timings.decode_tokens_per_s:.1f} tokens/s")
    if timings.ttft_s is not None:
        parts.append(f"first after {timings.ttft_s:.2f} s")
    return ", ".join(parts)
