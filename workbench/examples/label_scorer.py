"""Which of some labels fits a text best, by the model's own probabilities: a choice with a measured confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        """The same for several texts; texts times labels requests, of which `batch_size` at once."""
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
        requests, num_label_tokens = [], []
        for text in texts:
            prompt = self._llm.tokenizer.encode(self._template.replace("{text}", text))
            for label in self._labels:
                ids = self._llm.tokenizer.encode(f" {label}", add_special_tokens=False)
                requests.append({"prompt": [*prompt, *ids], "max_tokens": 0, "prompt_logprobs": 0})
                num_label_tokens.append(len(ids))
        means = []
        for completion, count in zip(ask_all(self._llm, requests, batch_size), num_label_tokens, strict=True):
            of_label = [entry.logprob for entry in (completion.prompt_logprobs or ())[-count:] if entry is not None]
            means.append(sum(of_label) / count)
        size = len(self._labels)
        return [means[at : at + size] for at in range(0, len(means), size)]
