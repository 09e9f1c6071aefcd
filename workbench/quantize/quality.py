"""How close a quantised model's predictions are to the original's, on given texts. Knows no method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Quality", "compare", "token_logits"]


@dataclass(frozen=True)
class Quality:
    """Means over `num_tokens` predictions.

    `mean_kl` is the divergence of the new distribution from the reference's in nats (0: the same), `top1_agreement`
    the share of positions where both find the same token likeliest.
    """

    reference_perplexity: float
    perplexity: float
    mean_kl: float
    top1_agreement: float
    num_tokens: int

    @property
    def perplexity_change(self) -> float:
        """Relative: 0.01 is one percent worse."""
        return self.perplexity / self.reference_perplexity - 1


def token_logits(model: nn.Module, samples: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Logits [tokens - 1, vocabulary] for each sample [1, tokens]: the predictions whose answer the sample holds."""
    with torch.inference_mode():
        outputs = [model(sample) for sample in samples]
        return [getattr(output, "logits", output)[0, :-1] for output in outputs]


def compare(
    reference: Sequence[torch.Tensor], logits: Sequence[torch.Tensor], samples: Sequence[torch.Tensor]
) -> Quality:
    """Measure `logits` against `reference`, both from `token_logits` on `samples`."""
    totals = torch.zeros(4, dtype=torch.float64)
    num_tokens = 0
    for exact, other, sample in zip(reference, logits, samples, strict=True):
        exact, other = (functional.log_softmax(one.float(), dim=-1) for one in (exact, other))
        answers = sample[0, 1:]
        totals += torch.stack(
            [
                functional.nll_loss(exact, answers, reduction="sum"),
                functional.nll_loss(other, answers, reduction="sum"),
                functional.kl_div(other, exact, reduction="sum", log_target=True),
                (exact.argmax(-1) == other.argmax(-1)).sum().float(),
            ]
        ).cpu()
        num_tokens += answers.shape[0]
    exact_loss, loss, kl, agreement = (totals / num_tokens).tolist()
    return Quality(math.exp(exact_loss), math.exp(loss), max(0.0, kl), agreement, num_tokens)
