"""`workbench example named_entity_recognition`: find names, places, dates and the like in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.cli.example.texts_command import TextsJob, texts_command

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["command"]

_TEXT = "Ada Lovelace met Charles Babbage in London on 5 June 1833."


@dataclass(frozen=True)
class _Types:
    """What to look for.

    Attributes:
        entity_types: which types, separated by commas; all otherwise.
    """

    entity_types: str | None = None

    def __post_init__(self) -> None:
        from workbench.examples.named_entity_recognition import check_entity_types

        check_entity_types(self.named)

    @property
    def named(self) -> Sequence[str]:
        """The types as the example knows them."""
        from workbench.examples.named_entity_recognition import ENTITY_TYPES

        return (
            ENTITY_TYPES if self.entity_types is None else [one.strip().upper() for one in self.entity_types.split(",")]
        )


def _extracted(llm: LlamaGPU, job: TextsJob) -> dict[str, Any]:
    from workbench.examples.named_entity_recognition import NERProcessor

    example = NERProcessor(llm, job.choice.named)
    found = example.extract_entities_batch(job.texts, job.batch_size)
    results = [{"text": text, "entities": entities} for text, entities in zip(job.texts, found, strict=True)]
    return {"results": results, "statistics": example.get_entity_statistics([one for each in found for one in each])}


command = texts_command(_TEXT, _extracted, _Types)
