"""Texts of models and people as Gradio's markdown shows them: what looks like a tag stays readable. Pure."""

from __future__ import annotations

import re

__all__ = ["shown_text", "typed_text"]

# Without width: behind a < it keeps the letters after it from being a tag, and can be told from what was written.
_JOINER = "\u2060"
# Code and formulas are left alone: tags are text there already.
_LEFT_ALONE = re.compile(
    r"(^ {0,3}(?P<fence>`{3,}|~{3,})[\s\S]*?(?:^ {0,3}(?P=fence)|\Z)|(?P<ticks>`+)[^`][\s\S]*?(?<!`)(?P=ticks)(?!`)"
    r"|\$\$[\s\S]+?\$\$|\\\([\s\S]+?\\\)|\\\[[\s\S]+?\\\])",
    re.MULTILINE,
)
# Addresses in angle brackets are links.
_TAG = re.compile(r"<(?=[A-Za-z/!?])(?!(?:https?://|mailto:)[^\s<>]*>)")
# Gradio colours C++ only where a page has shown C before, and otherwise shows an empty message.
_CPP = re.compile(r"^( {0,3}(?:`{3,}|~{3,}))cpp\b", re.MULTILINE)
_CPP_AS_C = f"c {_JOINER}cpp"


def shown_text(text: str) -> str:
    """The text for a markdown component. `typed_text` gives it back."""
    parts: list[str] = []
    end = 0
    for found in _LEFT_ALONE.finditer(text):
        parts += [_TAG.sub(f"<{_JOINER}", text[end : found.start()]), _CPP.sub(rf"\1{_CPP_AS_C}", found[0])]
        end = found.end()
    return "".join((*parts, _TAG.sub(f"<{_JOINER}", text[end:])))


def typed_text(text: str) -> str:
    """What a person left of a text that was shown, without what `shown_text` put in."""
    return text.replace(_CPP_AS_C, "cpp").replace(f"<{_JOINER}", "<")
