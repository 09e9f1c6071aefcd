"""Texts of models and people as Gradio's markdown shows them: what looks like a tag stays readable. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["reply_text", "shown_text", "typed_text"]

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


# A formula between single dollars, which prices are not: no blank inside of either, no letter or digit outside.
_DOLLARS = re.compile(r"(?<![\\$\w])\$(?![\s$])([^$\n]*?[^$\s\\])\$(?![\w$])")


def reply_text(text: str) -> str:
    """A model's text for a markdown component, formulas between single dollars included."""
    return shown_text(_changed(text, lambda part: _DOLLARS.sub(r"\\(\1\\)", part), lambda part: part))


def shown_text(text: str) -> str:
    """A person's text for a markdown component. `typed_text` gives it back."""
    return _changed(text, lambda part: _TAG.sub(f"<{_JOINER}", part), lambda part: _CPP.sub(rf"\1{_CPP_AS_C}", part))


def _changed(text: str, prose: Callable[[str], str], rest: Callable[[str], str]) -> str:
    """The text with its prose changed by one, and its code and formulas by the other."""
    parts: list[str] = []
    end = 0
    for found in _LEFT_ALONE.finditer(text):
        parts += [prose(text[end : found.start()]), rest(found[0])]
        end = found.end()
    return "".join((*parts, prose(text[end:])))


def typed_text(text: str) -> str:
    """What a person left of a text that was shown, without what `shown_text` put in."""
    return text.replace(_CPP_AS_C, "cpp").replace(f"<{_JOINER}", "<")
