"""Says which kind of document a text is, with a measured confidence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.label_scorer import LabelScorer
from workbench.examples.statistics import mean_or_none, share_of_each

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["CATEGORIES", "DocumentClassifier"]

CATEGORIES = (
    "NEWS", "TECHNICAL", "LEGAL", "MEDICAL", "FINANCIAL", "ACADEMIC", "MARKETING", "PERSONAL", "GOVERNMENT",
    "ENTERTAINMENT",
)  # fmt: skip
# The first words tell the kind; more costs time for every category.
_MAX_CHARS = 1500
_EXAMPLES = (
    ("The patient was given 5 mg of the drug twice a day.", "MEDICAL"),
    ("Shares rose 3 percent after quarterly earnings beat forecasts.", "FINANCIAL"),
    ("To install the package, run the command below and restart the service.", "TECHNICAL"),
)


class DocumentClassifier:
    """Scores the ten categories for a document; `confidence` is the winner's share of the probability."""

    def __init__(self, llm: LlamaGPU, categories: Sequence[str] = CATEGORIES) -> None:
        shown = [example for example in _EXAMPLES if example[1] in categories]
        # As words and not in capitals: each is then one token, which a small model knows better.
        self._names = {category.capitalize(): category for category in categories}
        examples = [(text, category.capitalize()) for text, category in shown]
        self._scorer = LabelScorer(llm, "Document: {text}\nCategory:", tuple(self._names), examples)

    def classify_document(self, document: str) -> dict[str, Any]:
        """{document, category, confidence, scores, processing_time}; time in seconds."""
        return self.classify_documents_batch([document])[0]

    def classify_documents_batch(self, documents: Sequence[str], batch_size: int | None = None) -> list[dict[str, Any]]:
        """The same for several, in their order; `processing_time` is each one's share of the whole."""
        for document in documents:
            if not document.strip():
                raise RequestError("a document is empty: give some text")
        started_s = time.perf_counter()
        rankings = self._scorer.score_all([" ".join(d.split())[:_MAX_CHARS] for d in documents], batch_size)
        each_s = round((time.perf_counter() - started_s) / max(1, len(documents)), 4)
        return [
            {
                "document": document,
                "category": self._names[ranking[0].label],
                "confidence": ranking[0].probability,
                "scores": {self._names[score.label]: score.probability for score in ranking},
                "processing_time": each_s,
            }
            for document, ranking in zip(documents, rankings, strict=True)
        ]

    def get_classification_statistics(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """{total_documents, by_category, mean_confidence} of such results."""
        return {
            "total_documents": len(results),
            "by_category": share_of_each(result["category"] for result in results),
            "mean_confidence": mean_or_none(result["confidence"] for result in results),
        }
