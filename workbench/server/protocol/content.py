"""The text of a message, which comes as a string or in parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workbench.server.protocol.forms import by_class, first_wrong, forms, forms_by
from workbench.server.protocol.wire import WireRequest

__all__ = ["Content", "content_text"]


class TextPart(WireRequest):
    """A piece of text."""

    unsupported = {"annotations": ([],), "logprobs": ([],), "prompt_cache_breakpoint": ()}

    type: Literal["text", "input_text", "output_text"]
    text: str


class RefusalPart(WireRequest):
    """A piece of text in which the model refused."""

    type: Literal["refusal"]
    refusal: str


Part = Annotated[
    TextPart | RefusalPart,
    forms_by(
        "type",
        {"text": TextPart, "input_text": TextPart, "output_text": TextPart, "refusal": RefusalPart},
        "must be a part of type text: this server takes no images, no sound and no files",
    ),
]
Content = Annotated[
    str | list[Part],
    forms(
        by_class({str: "text", list: "parts"}),
        "must be a text or a list of parts",
        {"text": str, "parts": Annotated[list[Part], Field(min_length=1, max_length=1024), first_wrong]},
    ),
]


def content_text(content: str | list[TextPart | RefusalPart] | None) -> str:
    """The text, its parts on lines of their own; "" for None."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
