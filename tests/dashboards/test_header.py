"""What the line above the tabs says of a model that is ready."""

from types import SimpleNamespace

import gradio as gr
import pytest

from dashboards.tabs.header import Header
from workbench.errors import EngineStoppedError


class Stopped:
    @property
    def meanwhile(self) -> str:
        raise EngineStoppedError("it has just gone")


@pytest.mark.parametrize(
    ("llm", "end"),
    [
        (SimpleNamespace(meanwhile=""), "int8 on cuda</span>"),
        (
            SimpleNamespace(meanwhile="torch's operators, while kernels are being compiled: 3 of 34"),
            "int8 on cuda; slower at first: torch&#x27;s operators, while kernels are being compiled</span>",
        ),
        (Stopped(), "int8 on cuda</span>"),
    ],
)
def test_a_model_that_still_prepares_itself_says_so(llm: object, end: str) -> None:
    state = SimpleNamespace(is_ready=True, has_crashed=False, words="", max_context=100, model="small")
    facts = SimpleNamespace(precision="int8", backend="cuda")
    status = SimpleNamespace(facts=facts, state=None)
    parts = SimpleNamespace(
        source=SimpleNamespace(state=lambda: state), session=SimpleNamespace(status=status, llm=llm)
    )
    with gr.Blocks():
        header = Header(parts)
    assert end in header._line()
