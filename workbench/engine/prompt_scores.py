"""Log-probabilities of a prompt's own tokens, gathered as its chunks are computed."""

from __future__ import annotations

import torch

from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.sampler import token_logprobs
from workbench.engine.sequence import Sequence

__all__ = ["prompt_logprobs", "score_prompt"]


def score_prompt(sequence: Sequence, start: int, rows: torch.Tensor) -> None:
    """Log-probabilities of the prompt tokens that `rows` predict; the row of position p predicts position p + 1."""
    if not sequence.prompt_logprobs:
        sequence.prompt_logprobs.append(None)
    first = len(sequence.prompt_logprobs)
    end = min(start + len(rows) + 1, sequence.num_prompt_tokens)
    if first >= end:
        return
    ids = sequence.token_ids[first:end]
    wanted = rows[first - 1 - start : end - 1 - start]
    num_likeliest = sequence.params.prompt_logprobs
    assert num_likeliest is not None  # else nobody scores
    sequence.prompt_logprobs.extend(token_logprobs(wanted, ids, num_likeliest))


def prompt_logprobs(sequence: Sequence) -> tuple[TokenLogprobs | None, ...] | None:
    """Those of the whole prompt, one per token (the first has none); None where nobody asked."""
    return None if sequence.params.prompt_logprobs is None else tuple(sequence.prompt_logprobs)
