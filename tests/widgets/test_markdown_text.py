import re

import pytest

from widgets.markdown_text import MarkdownStream, render_markdown


def test_headings_lists_tables_code_and_emphasis():
    page = render_markdown(
        "# Title\n\nSome *words* and `code`.\n\n1. one\n\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```python\nprint(1)\n```\nafter"
    )
    for piece in ("<h1>Title</h1>", "<em>words</em>", "<code>code</code>", "<table>", "<p>after</p>"):
        assert piece in page
    assert page.count("<ol>") == 1
    assert '<span class="nb">print</span>' in page


@pytest.mark.parametrize(
    ("text", "display"),
    [
        (r"so $x^2$ is", "inline"),
        (r"so \(x^2\) is", "inline"),
        ("$$\nx^2\n$$", "block"),
        (r"\[ x^2 \]", "block"),
        ("\\begin{align}\nx^2\n\\end{align}", "block"),
    ],
)
def test_formulas_become_mathml(text, display):
    page = render_markdown(text)
    assert f'display="{display}"' in page
    assert "<msup>" in page


def test_prices_are_no_formulas_and_code_keeps_its_dollars():
    assert "<math" not in render_markdown("It costs $5 and $6.")
    assert "<math" not in render_markdown("```\n\\(x\\) $y$\n```")


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](http://example.org/spy.png)",
        "<a href='javascript:alert(1)'>x</a>",
        "$\\text{<img src=x onerror=alert(1)>}$",
        "$\\href{javascript:alert(1)}{x}$",
        "```<script>\nx\n```",
        "```python\n</code><script>alert(1)</script>\n```",
        "<math><mtext></mtext><script>alert(1)</script></math>",
    ],
)
def test_what_the_model_writes_never_becomes_markup(text):
    page = render_markdown(text)
    assert not re.search(r"<(script|img|iframe|object|a href=.javascript)", page), page
    assert not re.search(r"<[^>]+\son\w+=", page), page
    assert not re.search(r"<[^>]+(href|src)=[\"']?(javascript|data):", page), page


@pytest.fixture
def rendered(monkeypatch):
    """The sources of the blocks that are rendered."""
    from widgets import markdown_text

    sources = []
    render = markdown_text._render_block
    monkeypatch.setattr(markdown_text, "_render_block", lambda source: sources.append(source) or render(source))
    return sources


def test_a_growing_text_renders_like_the_whole_and_its_old_blocks_once(rendered):
    text = "First *paragraph*.\n\n- a\n- b\n\n```py\nx = 1\n\ny = 2\n```\n\nLast $x$."
    stream = MarkdownStream()
    for end in range(len(text) + 1):
        blocks = stream.blocks_of(text[:end])
    assert blocks == MarkdownStream().blocks_of(text)
    assert sum(source.startswith("First *paragraph*.\n") for source in rendered[:-4]) <= 3


def test_an_open_fence_is_code_already():
    assert "<pre>" in render_markdown("Look:\n```python\nx = 1")


def test_a_long_reply_is_no_burden(rendered):
    text = "A paragraph with *words* and `code` in it.\n\n" * 400
    stream = MarkdownStream()
    stream.blocks_of(text)
    rendered.clear()
    for count in range(50):
        stream.blocks_of(text + "x" * count)
    # Its last block only, each time, and not the four hundred before it.
    assert len(rendered) <= 2 * 50


def test_formulas_in_a_paragraph_and_aligned_ones_are_formulas():
    page = render_markdown("The sum \\[ \\sum_{i=1}^n i \\] and\n$$\\begin{aligned} a&=b\\\\ c&=d\\end{aligned}$$")
    assert page.count("<math") == 2 and "$" not in page
    assert page.count("<mtr>") == 2 and "&amp;" not in page
