"""Model text as safe HTML: markdown, code in colour, formulas as MathML. What the model writes never becomes markup.

Rendered block by block, so that a growing text costs its last block only.
"""

from __future__ import annotations

import functools
import html
import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

__all__ = ["MarkdownStream", "render_markdown"]

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
# Models write \( \) and \[ \] where markdown wants dollars.
_BRACKETS = ((re.compile(r"\\\[(.+?)\\\]", re.DOTALL), r"$$\1$$"), (re.compile(r"\\\((.+?)\\\)", re.DOTALL), r"$\1$"))
# An environment within a formula, which the converter knows by the name of the one that stands by itself only.
_ALIGNED = re.compile(r"\\(begin|end)\{aligned\}")
# The converter passes links, styles and unescaped text through; only these get out.
_MATH_TAGS = frozenset(
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle merror mpadded mphantom msub msup msubsup munder "
    "mover munderover mmultiscripts mprescripts none mtable mtr mtd menclose".split()
)
_MATH_ATTRIBUTES = frozenset(
    "display displaystyle scriptlevel mathvariant stretchy fence form separator lspace rspace linethickness width "
    "height depth columnalign rowspacing columnspacing columnlines rowlines notation accent accentunder "
    "movablelimits largeop minsize maxsize symmetric".split()
)
# A single block longer than this is not parsed: parsing would hold up everything else.
_LONGEST_BLOCK = 50_000


def render_markdown(text: str) -> str:
    """The whole text as HTML. Markup in it is shown as text; links lead to http, https and mailto only."""
    return "".join(MarkdownStream().blocks_of(text))


@dataclass
class _Rendered:
    source: str
    page: str


class MarkdownStream:
    """Renders a text that grows: blocks that did not change are not rendered again."""

    def __init__(self) -> None:
        self._blocks: list[_Rendered] = []

    def blocks_of(self, text: str) -> list[str]:
        """The HTML of each block of the text as it stands now."""
        sources = _split_blocks(text)
        for index, source in enumerate(sources):
            if index < len(self._blocks) and self._blocks[index].source == source:
                continue
            self._blocks[index:] = []
            self._blocks.append(_Rendered(source, _render_block(source)))
        del self._blocks[len(sources) :]
        return [block.page for block in self._blocks]


def _split_blocks(text: str) -> list[str]:
    """Pieces between blank lines; a fence and everything indented (a list's further paragraphs) stay together."""
    blocks: list[str] = []
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif found:
            fence = found[1]
        starts_anew = lines and not lines[-1].strip() and line.strip() and not fence or (found and fence and lines)
        if starts_anew and not line.startswith((" ", "\t")) and not _continues_list(lines, line):
            blocks.append("\n".join(lines))
            lines = []
        lines.append(line)
    if lines:
        blocks.append("\n".join(lines))
    return [block for block in blocks if block.strip()]


_ITEM = re.compile(r"^\s*([-*+]|\d+[.)])\s")


def _continues_list(lines: list[str], line: str) -> bool:
    """Items with blank lines between them are one list."""
    first = next((candidate for candidate in lines if candidate.strip()), "")
    return bool(_ITEM.match(first) and _ITEM.match(line))


def _render_block(source: str) -> str:
    if len(source) > _LONGEST_BLOCK:
        return f"<pre>{html.escape(source)}</pre>"
    if not _FENCE.match(source.lstrip("\n")):
        for pattern, dollars in _BRACKETS:
            source = pattern.sub(dollars, source)
    return _markdown().render(source)


@functools.cache
def _markdown() -> MarkdownIt:
    # Without `html` every tag in the text is escaped.
    markdown = MarkdownIt("commonmark", {"html": False, "highlight": _highlight}).enable(["table", "strikethrough"])
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True, renderer=_math)
    markdown.use(amsmath_plugin, renderer=lambda content: _math(content, {"display_mode": True}))
    # Pictures would be fetched from wherever the model says.
    markdown.disable("image")
    markdown.add_render_rule("link_open", _link_open)
    return markdown


def _link_open(self, tokens, index, options, env) -> str:
    target = str(tokens[index].attrGet("href") or "")
    if not target.startswith(("http://", "https://", "mailto:")):
        tokens[index].attrSet("href", "#")
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, index, options, env)


def _highlight(code: str, language: str, _attributes: str) -> str:
    try:
        lexer = get_lexer_by_name(language.strip() or "text", stripnl=False)
    except ClassNotFound:
        return html.escape(code)
    return highlight(code, lexer, HtmlFormatter(nowrap=True))


def _math(content: str, options: dict[str, bool]) -> str:
    display = "block" if options.get("display_mode") else "inline"
    try:
        return _as_mathml(convert_to_element(_ALIGNED.sub(r"\\\1{align*}", content), display=display))
    # The converter has a class of its own for each thing it does not know, and none that all share.
    except Exception:
        return f"<code>{html.escape(content)}</code>"


def _as_mathml(element: Element) -> str:
    """Element, its text and its children, with nothing but what belongs into a formula."""
    tag = element.tag if element.tag in _MATH_TAGS else "mrow"
    attributes = "".join(
        f' {name}="{html.escape(str(value))}"' for name, value in element.attrib.items() if name in _MATH_ATTRIBUTES
    )
    # The converter writes characters as entities.
    text = html.escape(html.unescape(element.text or ""))
    return f"<{tag}{attributes}>{text}{''.join(map(_as_mathml, element))}</{tag}>"
