"""Changes to a row's logits that depend on the tokens so far: penalties, biases, forbidden n-grams, early stops."""

from __future__ import annotations

import torch

from workbench.engine.sequence import Sequence

__all__ = ["edit_logits"]


def edit_logits(logits: torch.Tensor, sequence: Sequence) -> None:
    """Change `logits` [vocab], float32, in place by the sequence's own settings.

    The order is repetition penalty, presence and frequency penalties, bias, then what is forbidden outright.
    """
    params = sequence.params
    if params.repetition_penalty != 1.0:
        _penalise_repetition(logits, sequence.token_ids, params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        _penalise_generated(logits, sequence)
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits.device)
        logits[ids] += torch.tensor(list(params.logit_bias.values()), device=logits.device)
    forbidden = _completions_of_seen_ngrams(sequence.token_ids, params.no_repeat_ngram_size)
    if sequence.num_generated_tokens < params.min_tokens:
        forbidden |= {i for i in sequence.stop_token_ids if i < logits.shape[0]}
    if 0 < len(forbidden) < logits.shape[0]:
        logits[torch.tensor(sorted(forbidden), device=logits.device)] = float("-inf")


def _penalise_repetition(logits: torch.Tensor, token_ids: list[int], penalty: float) -> None:
    seen = torch.tensor(sorted(set(token_ids)), device=logits.device)
    values = logits[seen]
    logits[seen] = torch.where(values > 0, values / penalty, values * penalty)


def _penalise_generated(logits: torch.Tensor, sequence: Sequence) -> None:
    generated = sequence.generated_token_ids
    if not generated:
        return
    ids, counts = torch.tensor(generated, device=logits.device).unique(return_counts=True)
    logits[ids] -= sequence.params.presence_penalty + sequence.params.frequency_penalty * counts


def _completions_of_seen_ngrams(token_ids: list[int], size: int) -> set[int]:
    """Tokens that would make the last `size` tokens equal to an earlier run of `size` tokens."""
    if size == 0 or len(token_ids) < size:
        return set()
    if size == 1:
        return set(token_ids)
    tail = token_ids[-(size - 1) :]
    starts = range(len(token_ids) - size + 1)
    return {token_ids[i + size - 1] for i in starts if token_ids[i : i + size - 1] == tail}
