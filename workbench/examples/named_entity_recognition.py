"""Finds names, places, dates and the like in a text, as JSON that the sampler holds to its schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.engine import StructureKind, StructureSpec
from workbench.errors import RequestError
from workbench.examples.answers import ask_all
from workbench.examples.statistics import share_of_each

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["ENTITY_TYPES", "NERProcessor", "check_entity_types"]

ENTITY_TYPES = (
    "PERSON", "ORGANIZATION", "LOCATION", "DATE", "TIME", "MONEY", "PERCENT", "QUANTITY", "EVENT", "PRODUCT",
)  # fmt: skip
_MAX_ENTITIES = 16
_MAX_TOKENS = 384
_DECODER = json.JSONDecoder()
_PROMPT = """Find the entities in the text and give their types.
Text: The phone costs $499, 10 percent less than last year.
Entities: [{"text": "$499", "type": "MONEY"}, {"text": "10 percent", "type": "PERCENT"}]
Text: Maria Lopez joined Siemens in Berlin on 3 May 2021.
Entities: [{"text": "Maria Lopez", "type": "PERSON"}, {"text": "Siemens", "type": "ORGANIZATION"}, \
{"text": "Berlin", "type": "LOCATION"}, {"text": "3 May 2021", "type": "DATE"}]
Text: {text}
Entities:"""


def check_entity_types(entity_types: Sequence[str]) -> None:
    """Raises RequestError for an unknown type, and for none at all."""
    unknown = sorted(set(entity_types) - set(ENTITY_TYPES))
    if unknown or not entity_types:
        raise RequestError(f"entity_types: {unknown or 'none'}; known are {', '.join(ENTITY_TYPES)}")


class NERProcessor:
    """Extracts entities of ten types, or of those that are asked for.

    What the model names but the text does not hold is left out, so every entity has a place.
    """

    def __init__(self, llm: LlamaGPU, entity_types: Sequence[str] = ENTITY_TYPES) -> None:
        check_entity_types(entity_types)
        self._llm = llm
        entity = {
            "type": "object",
            "properties": {"text": {"type": "string"}, "type": {"enum": list(entity_types)}},
            "required": ["text", "type"],
            "additionalProperties": False,
        }
        schema = {"type": "array", "items": entity, "maxItems": _MAX_ENTITIES}
        self._structure = StructureSpec(StructureKind.JSON_SCHEMA, json.dumps(schema))

    def extract_entities(self, text: str) -> list[dict[str, Any]]:
        """Entities {text, type, start, end}, in the text's order; `end` is one past the last character."""
        return self.extract_entities_batch([text])[0]

    def extract_entities_batch(self, texts: Sequence[str], batch_size: int | None = None) -> list[list[dict[str, Any]]]:
        """The same for several texts, in their order."""
        for text in texts:
            if not text.strip():
                raise RequestError("a text is empty: give some text")
        requests = [
            {"prompt": _PROMPT.replace("{text}", text), "structure": self._structure, "max_tokens": _MAX_TOKENS}
            for text in texts
        ]
        answers = ask_all(self._llm, requests, batch_size)
        return [_placed(text, answer.text) for text, answer in zip(texts, answers, strict=True)]

    def get_entity_statistics(self, entities: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """{total_entities, by_type, most_common}; the latter are (text, count), at most ten."""
        return {
            "total_entities": len(entities),
            "by_type": share_of_each(entity["type"] for entity in entities),
            "most_common": Counter(entity["text"] for entity in entities).most_common(10),
        }


def _placed(text: str, answer: str) -> list[dict[str, Any]]:
    """The named entities at their places. An answer that was cut off counts as far as it is whole."""
    found: list[dict[str, Any]] = []
    for named in _whole_items(answer):
        start = _free_place(text, named["text"], found)
        if start is not None:
            end = start + len(named["text"])
            found.append({"text": named["text"], "type": named["type"], "start": start, "end": end})
    return sorted(found, key=lambda entity: entity["start"])


def _free_place(text: str, name: str, taken: Sequence[dict[str, Any]]) -> int | None:
    """Where the name stands first outside what is already an entity."""
    start = text.find(name) if name else -1
    while start >= 0:
        if all(start + len(name) <= other["start"] or start >= other["end"] for other in taken):
            return start
        start = text.find(name, start + 1)
    return None


def _whole_items(answer: str) -> list[dict[str, str]]:
    """The array's objects one by one: the schema holds up to where max_tokens cut it, perhaps within a name."""
    items: list[dict[str, str]] = []
    at = answer.find("{")
    while at >= 0:
        try:
            item, end = _DECODER.raw_decode(answer, at)
        except ValueError:
            break
        items.append(item)
        at = answer.find("{", end)
    return items
