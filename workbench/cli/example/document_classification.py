"""`workbench example document_classification`: say which kind of document a text is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.cli.example.texts_command import TextsJob, check_threshold, sure_enough, texts_command

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["command"]

_TEXT = "The court ruled that the contract was void and ordered both parties to bear their own costs."


@dataclass(frozen=True)
class _Wishes:
    """What is told.

    Attributes:
        confidence_threshold: leave out results that are less sure, 0 to 1.
    """

    confidence_threshold: float = 0.0

    def __post_init__(self) -> None:
        check_threshold(self.confidence_threshold)


def _classified(llm: LlamaGPU, job: TextsJob) -> dict[str, Any]:
    from workbench.examples.document_classification import DocumentClassifier

    example = DocumentClassifier(llm)
    found = example.classify_documents_batch(job.texts, job.batch_size)
    sure = sure_enough(found, job.choice.confidence_threshold)
    statistics = example.get_classification_statistics(sure)
    return {"results": sure, "num_left_out": len(found) - len(sure), "statistics": statistics}


command = texts_command(_TEXT, _classified, _Wishes)
