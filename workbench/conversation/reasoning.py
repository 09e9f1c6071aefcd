"""Tells what a model thinks aloud from what it answers. Knows the tags that models write, no model."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REASONING_TAGS", "ReplyPart", "split_reasoning"]

# DeepSeek-R1, Qwen3 and their kin; then older and other spellings.
REASONING_TAGS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"))


@dataclass(frozen=True)
class ReplyPart:
    """A stretch of a reply. `is_open` marks thoughts whose end has not come yet."""

    text: str
    is_reasoning: bool = False
    is_open: bool = False


def split_reasoning(text: str, tags: tuple[tuple[str, str], ...] = REASONING_TAGS) -> list[ReplyPart]:
    """The parts of a reply in order, empty ones left out.

    Some chat templates write the opening tag themselves: then the reply begins inside of it, and everything up to a
    closing tag without an opening one is reasoning.
    """
    parts: list[ReplyPart] = []
    while text:
        opening = _first(text, [tag[0] for tag in tags])
        closing = _first(text, [tag[1] for tag in tags])
        if closing and (opening is None or closing[0] < opening[0]) and not parts:
            parts.append(ReplyPart(text[: closing[0]], is_reasoning=True))
            text = text[closing[0] + len(closing[1]) :]
            continue
        if opening is None:
            parts.append(ReplyPart(text))
            break
        at, tag = opening
        parts.append(ReplyPart(text[:at]))
        thought, found, text = text[at + len(tag) :].partition(dict(tags)[tag])
        parts.append(ReplyPart(thought, is_reasoning=True, is_open=not found))
    return [
        ReplyPart(part.text.strip("\n"), part.is_reasoning, part.is_open)
        for part in parts
        if part.text.strip() or part.is_open
    ]


def _first(text: str, tags: list[str]) -> tuple[int, str] | None:
    found = [(text.find(tag), tag) for tag in tags if tag in text]
    return min(found, default=None)
