"""`workbench example document_classification`: say which kind of document a text is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.cli.example.texts_command import TextsJob, texts_command

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["command"]

_TEXT = "The court ruled that the contract was void and ordered both parties to bear their own costs."


def _classified(llm: LlamaGPU, job: TextsJob) -> dict[str, Any]:
    from workbench.examples.document_classification import DocumentClassifier

    example = DocumentClassifier(llm)
    found = example.classify_documents_batch(job.texts, job.batch_size)
    return {"results": found, "statistics": example.get_classification_statistics(found)}


command = texts_command(_TEXT, _classified)
