import pytest

from workbench.conversation import split_reasoning


def _shape(text: str) -> list[tuple[str, bool, bool]]:
    return [(part.text, part.is_reasoning, part.is_open) for part in split_reasoning(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("just this", [("just this", False, False)]),
        ("<think>hm</think>\n\nyes", [("hm", True, False), ("yes", False, False)]),
        ("<think>\nstill at it", [("still at it", True, True)]),
        ("<think>", [("", True, True)]),
        ("<think></think>yes", [("yes", False, False)]),
        # A template that has written the opening tag itself.
        ("hm</think>yes", [("hm", True, False), ("yes", False, False)]),
        ("a<think>b</think>c<reasoning>d</reasoning>", [(c, c in "bd", False) for c in "abcd"]),
        ("no tag: </thin", [("no tag: </thin", False, False)]),
    ],
)
def test_thoughts_are_told_from_the_answer(text, parts):
    assert _shape(text) == parts


def test_no_whole_tag_is_ever_shown_while_a_reply_grows():
    whole = "<think>first this</think>then that"
    for end in range(len(whole) + 1):
        shown = [part.text for part in split_reasoning(whole[:end])]
        assert not any(tag in text for text in shown for tag in ("<think>", "</think>"))
        assert end < 8 or "first this".startswith(shown[0][:10])
