"""Which of some labels fits a text best, by the model's own probabilities: a choice with a measured confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from workbench.engine.sampling_params import MAX_TOP_LOGPROBS
from workbench.errors import RequestError
from workbench.examples.answers import ask_all

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["LabelScore", "LabelScorer"]


@dataclass(frozen=True)
class LabelScore:
    """A label and its share of the probability among all of them."""

    label: str
    probability: float


class LabelScorer:
    """Scores how likely each label is to follow a prompt.

    A label's score is the mean log-probability of its tokens after the text, less the same after a text without
    content: what a model prefers to say anyway is no evidence (contextual calibration, Zhao et al. 2021). Shares are a
    softmax over the scores.

    Args:
        llm: the model.
        template: a prompt with "{text}" in it, which the label follows.
        labels: two or more different labels.
        examples: texts with their labels, shown before the text.
    """

    def __init__(
        self, llm: LlamaGPU, template: str, labels: Sequence[str], examples: Sequence[tuple[str, str]] = ()
    ) -> None:
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise RequestError("labels: give two or more that differ")
        self._llm = llm
        self._labels = tuple(labels)
        shown = "".join(f"{template.replace('{text}', text)} {label}\n\n" for text, label in examples)
        self._template = shown + template
        self._neutral: list[float] | None = None

    def score(self, text: str) -> list[LabelScore]:
        """All labels for a text, the likeliest first."""
        return self.score_all([text])[0]

    def score_all(self, texts: Sequence[str], batch_size: int | None = None) -> list[list[LabelScore]]:
        """The same for several texts, `batch_size` requests at once."""
        if self._neutral is None:
            self._neutral = self._raw_scores(["N/A"], batch_size)[0]
        return [self._ranked(raw) for raw in self._raw_scores(texts, batch_size)]

    def _ranked(self, raw: list[float]) -> list[LabelScore]:
        scores = [score - neutral for score, neutral in zip(raw, self._neutral or (), strict=True)]
        largest = max(scores)
        weights = [math.exp(score - largest) for score in scores]
        shares = [weight / sum(weights) for weight in weights]
        found = (LabelScore(label, round(share, 4)) for label, share in zip(self._labels, shares, strict=True))
        return sorted(found, key=lambda score: -score.probability)

    def _raw_scores(self, texts: Sequence[str], batch_size: int | None) -> list[list[float]]:
        """Per text, the mean log-probability of each label's tokens."""
        encode = self._llm.tokenizer.encode
        labels = [tuple(encode(f" {label}", add_special_tokens=False)) for label in self._labels]
        # What follows each beginning that labels have: for labels of one token that is one place a text.
        followers: dict[tuple[int, ...], set[int]] = {}
        for ids in labels:
            for at, token_id in enumerate(ids):
                followers.setdefault(ids[:at], set()).add(token_id)
        places = [
            (text, start, [*prompt, *start])
            for text, prompt in enumerate(encode(self._template.replace("{text}", text)) for text in texts)
            for start in followers
        ]
        wanted = [followers[start] for _, start, _ in places]
        known = self._log_probabilities([prompt for _, _, prompt in places], wanted, batch_size)
        found = {(text, start): of_place for (text, start, _), of_place in zip(places, known, strict=True)}
        return [
            [fmean(found[text, ids[:at]][token_id] for at, token_id in enumerate(ids)) for ids in labels]
            for text in range(len(texts))
        ]

    def _log_probabilities(
        self, prompts: Sequence[list[int]], wanted: Sequence[set[int]], batch_size: int | None
    ) -> list[dict[int, float]]:
        """The log-probability of each wanted token after each prompt.

        One request a prompt tells the likeliest tokens. Each other wanted token is asked for by a bias that makes it
        the answer, which leaves its reported probability as it is; those requests reuse the prompt's cache.
        """
        one_token = {"max_tokens": 1, "logprobs": True, "ignore_eos": True}
        asked = [{"prompt": prompt, **one_token, "top_logprobs": MAX_TOP_LOGPROBS} for prompt in prompts]
        known = [dict(answer.logprobs[0].top) for answer in ask_all(self._llm, asked, batch_size)]
        missing = [(at, token_id) for at, ids in enumerate(wanted) for token_id in sorted(ids - known[at].keys())]
        forced = [{"prompt": prompts[at], **one_token, "logit_bias": {token_id: 100.0}} for at, token_id in missing]
        for (at, token_id), answer in zip(missing, ask_all(self._llm, forced, batch_size), strict=True):
            known[at][token_id] = answer.logprobs[0].logprob
        return known
