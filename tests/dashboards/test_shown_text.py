"""What looks like markup in a chat is shown as it was written, and comes back unchanged when it is edited."""

from __future__ import annotations

import pytest

from dashboards.shown_text import reply_text, shown_text, typed_text

J = "\u2060"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("How do I centre a <div>?", f"How do I centre a <{J}div>?"),
        ("<think a</b> <!-- c --> <?php", f"<{J}think a<{J}/b> <{J}!-- c --> <{J}?php"),
        ("1 < 2, <3, <https://a.org>", "1 < 2, <3, <https://a.org>"),
        ("`List<int>` and ``a`<b>`` but <i>", f"`List<int>` and ``a`<b>`` but <{J}i>"),
        ("```html\n<b>\n```\n<b>", f"```html\n<b>\n```\n<{J}b>"),
        ("```html\n<b> of a reply that runs", "```html\n<b> of a reply that runs"),
        ("$$a<b$$ \\(a<b\\) \\[a<b\\] a<b", f"$$a<b$$ \\(a<b\\) \\[a<b\\] a<{J}b"),
        ("a ` alone <b>", f"a ` alone <{J}b>"),
        ("```cpp\nint a;\n```", f"```c {J}cpp\nint a;\n```"),
        ("~~~cpp\n```cpp\n~~~", f"~~~c {J}cpp\n```c {J}cpp\n~~~"),
    ],
)
def test_tags_are_text_outside_of_code_and_formulas(text, shown):
    assert shown_text(text) == shown
    assert typed_text(shown) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("With $x^2$, $a<b$.", "With \\(x^2\\), \\(a<b\\)."),
        ("It costs $5 and $6, or $7.", "It costs $5 and $6, or $7."),
        ("`$x$` and $$y$$ and \\$z$", "`$x$` and $$y$$ and \\$z$"),
        ("$HOME/a and $PATH <b>", f"$HOME/a and $PATH <{J}b>"),
    ],
)
def test_formulas_of_a_reply_stand_between_single_dollars_too(text, shown):
    assert reply_text(text) == shown
