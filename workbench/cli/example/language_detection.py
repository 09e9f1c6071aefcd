"""`workbench example language_detection`: say in which language a text is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.cli.example.texts_command import TextsJob, texts_command

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["command"]

_TEXT = "Où se trouve la bibliothèque, s'il vous plaît ?"


def _detected(llm: LlamaGPU, job: TextsJob) -> dict[str, Any]:
    from workbench.examples.language_detection import LanguageDetector

    example = LanguageDetector(llm)
    found = example.detect_languages_batch(job.texts, job.batch_size)
    return {"results": found, "statistics": example.get_detection_statistics(found)}


command = texts_command(_TEXT, _detected)
