"""`workbench example language_detection`: say in which language a text is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.cli.example.texts_command import TextsJob, check_threshold, sure_enough, texts_command

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["command"]

_TEXT = "Où se trouve la bibliothèque, s'il vous plaît ?"


@dataclass(frozen=True)
class _Wishes:
    """What is told.

    Attributes:
        confidence_threshold: leave out results that are less sure, 0 to 1.
        include_families: also name each language's family.
    """

    confidence_threshold: float = 0.0
    include_families: bool = True

    def __post_init__(self) -> None:
        check_threshold(self.confidence_threshold)


def _detected(llm: LlamaGPU, job: TextsJob) -> dict[str, Any]:
    from workbench.examples.language_detection import LanguageDetector

    example = LanguageDetector(llm)
    found = example.detect_languages_batch(job.texts, job.batch_size)
    sure = sure_enough(found, job.choice.confidence_threshold)
    statistics = example.get_detection_statistics(sure)
    if not job.choice.include_families:
        for result in sure:
            del result["family"]
    return {"results": sure, "num_left_out": len(found) - len(sure), "statistics": statistics}


command = texts_command(_TEXT, _detected, _Wishes)
