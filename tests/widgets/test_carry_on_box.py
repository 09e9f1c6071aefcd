import pytest

from widgets import CarryOnBox
from workbench.errors import ConfigError
from workbench.session import LoadChoice


@pytest.mark.parametrize("form", ["code", "command", "json_text"])
def test_what_it_shows_opens_the_same_choice(front_end, form):
    choice, opened = LoadChoice("org/name", "cpu", "int8", 512), []
    box = CarryOnBox(choice, opened.append)
    front_end.tell(box, type="open", text=getattr(box, form))
    assert opened == [choice]
    assert (box.said, box.problem) == ("The choice was taken.", "")


def test_what_cannot_be_read_or_taken_is_said(front_end):
    def refuse(choice):
        raise ConfigError("backend 'cuda' can't be used here: no GPU")

    box = CarryOnBox(on_open=refuse)
    front_end.tell(box, type="open", text="print(1)")
    assert "exactly one call" in box.problem
    before = box.code
    front_end.tell(box, type="open", text="LlamaGPU('a', backend='cuda')")
    assert box.problem.endswith("no GPU")
    assert box.code == before
