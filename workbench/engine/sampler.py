"""Chooses each row's next token by the row's own parameters, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workbench.engine.logit_edits import edit_logits
from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.sequence import Sequence
from workbench.engine.uniform import uniform

__all__ = ["SampledTokens", "sample", "token_logprobs"]

# Truncation looks at this many likeliest tokens first, and at all of them only where these do not reach top_p.
_NUM_CANDIDATES = 1024


@dataclass(frozen=True)
class SampledTokens:
    """One token per row; `logprobs` holds None for rows that did not ask.

    `is_nan` marks rows whose logits were not numbers (an overflow in the model): their token means nothing.
    """

    token_ids: list[int]
    logprobs: list[TokenLogprobs | None]
    is_nan: list[bool]

    @classmethod
    def on_device(cls, token_ids: list[int]) -> SampledTokens:
        """As a device's own kernels choose them: -1 where the logits were not numbers."""
        return cls(token_ids, [None] * len(token_ids), [token_id < 0 for token_id in token_ids])


def sample(logits: torch.Tensor, sequences: list[Sequence]) -> SampledTokens:
    """Next token of every row. `logits` [rows, vocab] in the model's dtype stay as they are."""
    edited = _edited(logits, sequences)
    # `max` gives NaN wherever a row holds one, and an infinity where the model overflowed without one.
    likeliest = edited.max(dim=-1)
    token_ids, is_nan = likeliest.indices.tolist(), (~likeliest.values.isfinite()).tolist()
    for row, sequence in enumerate(sequences):
        if not sequence.params.is_greedy and not is_nan[row]:
            token_ids[row] = _sample_row(edited[row].float(), sequence)
        if sequence.plugins is not None and not is_nan[row]:
            token_ids[row] = _chosen_by_plugins(edited[row].float(), sequence, token_ids[row])
    logprobs = [
        token_logprobs(logits[row : row + 1], [token_ids[row]], s.params.top_logprobs)[0] if s.params.logprobs else None
        for row, s in enumerate(sequences)
    ]
    return SampledTokens(token_ids, logprobs, is_nan)


def token_logprobs(logits: torch.Tensor, token_ids: list[int], num_top: int) -> list[TokenLogprobs]:
    """Log-probabilities of one token per row of `logits` [rows, vocab], with the `num_top` likeliest."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])[:, 0].tolist()
    if num_top == 0:
        return [TokenLogprobs(i, p) for i, p in zip(token_ids, chosen, strict=True)]
    top = logprobs.topk(min(num_top, logprobs.shape[-1]), dim=-1)
    return [
        TokenLogprobs(i, p, tuple(zip(ids, values, strict=True)))
        for i, p, ids, values in zip(token_ids, chosen, top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def _edited(logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    if not any(s.params.edits_logits or s.matcher for s in sequences):
        return logits
    edited = logits.float()
    if edited is logits:
        edited = logits.clone()
    for row, sequence in enumerate(sequences):
        if sequence.params.edits_logits:
            edit_logits(edited[row], sequence)
        if sequence.plugins is not None:
            sequence.plugins.edit(edited[row], sequence.token_ids, sequence.num_prompt_tokens)
        if sequence.matcher is not None:
            sequence.matcher.constrain(edited[row])
    return edited


def _chosen_by_plugins(logits: torch.Tensor, sequence: Sequence, token_id: int) -> int:
    assert sequence.plugins is not None
    draw = uniform(sequence.seed, sequence.index, sequence.num_tokens)
    chosen = sequence.plugins.choose(logits, sequence.token_ids, draw)
    return token_id if chosen is None else chosen


def _sample_row(logits: torch.Tensor, sequence: Sequence) -> int:
    """Draw from one row, [vocab] float32, by inverting the cumulative distribution at the sequence's own number."""
    params = sequence.params
    draw = uniform(sequence.seed, sequence.index, sequence.num_tokens)
    scaled = (logits - logits.max()) / params.temperature
    if params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0 and params.typical_p == 1.0:
        return _invert(torch.softmax(scaled, dim=-1), draw)
    probs, ids = _candidates(scaled, sequence)
    keep = _kept(probs, sequence)
    return int(ids[_invert(torch.where(keep, probs, 0.0), draw)])


def _candidates(scaled: torch.Tensor, sequence: Sequence) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, largest first, and their token ids: as many as the row's truncation can need.

    With top_k they are renormalised over the k likeliest before the other filters see them, as transformers does.
    """
    params = sequence.params
    vocab = scaled.shape[-1]
    if params.top_k:
        values, ids = scaled.topk(min(params.top_k, vocab))
        return torch.softmax(values, dim=-1), ids
    probs = torch.softmax(scaled, dim=-1)
    if params.typical_p == 1.0 and vocab > _NUM_CANDIDATES:
        top, ids = probs.topk(_NUM_CANDIDATES)
        reaches_top_p = params.top_p < 1.0 and bool(top.sum() > params.top_p)
        if reaches_top_p or bool(top[-1] < params.min_p * top[0]):
            return top, ids
    return probs.sort(descending=True)


def _kept(probs: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    """Which of the sorted candidates top_p, min_p and typical_p leave; at least one."""
    params = sequence.params
    keep = torch.ones_like(probs, dtype=torch.bool)
    if params.top_p < 1.0:
        keep &= probs.cumsum(-1) - probs < params.top_p
    if params.min_p > 0.0:
        keep &= probs >= params.min_p * probs[0]
    if params.typical_p < 1.0:
        keep &= _typical(probs, params.typical_p)
    if not bool(keep.any()):
        keep[0] = True
    return keep


def _typical(probs: torch.Tensor, mass: float) -> torch.Tensor:
    surprise = -probs.clamp_min(1e-45).log()
    entropy = (probs * surprise).sum()
    order = (surprise - entropy).abs().sort(stable=True).indices
    cumulative = probs[order].cumsum(-1)
    keep = torch.zeros_like(probs, dtype=torch.bool)
    keep[order] = cumulative - probs[order] < mass
    return keep


def _invert(weights: torch.Tensor, draw: float) -> int:
    """First index whose cumulated weight exceeds `draw` of the total; float64, so that small weights still count."""
    cumulative = weights.double().cumsum(-1)
    target = cumulative[-1] * draw
    index = int(torch.searchsorted(cumulative, target.reshape(1), right=True))
    if index >= weights.shape[-1] or weights[index] == 0:
        index = int(weights.nonzero()[-1])
    return index
