"""What the Compare tab does, where it does not take a browser to see it."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from dashboards.desk import Desk
from dashboards.sources import ReplyPiece, SourceState
from dashboards.tabs.compare import CompareTab
from workbench.conversation import PresetShelf
from workbench.errors import ModelLoadError


class _Source:
    is_remote = False

    def state(self):
        return SourceState("Ready", is_ready=True, model="m", max_context=100)

    async def stream(self, ask):
        yield ReplyPiece("Hello.", 1)


async def _no_model(*_):
    raise ModelLoadError("org/none cannot be found")


async def test_one_model_that_cannot_be_loaded_leaves_the_other_answers(tmp_path):
    desk = Desk()
    parts = SimpleNamespace(
        source=_Source(),
        bench=SimpleNamespace(source=_no_model),
        shelf=PresetShelf(tmp_path / "presets.json"),
        desk=lambda request: desk,
        require_admin=lambda request: None,
        update_interval_s=0.01,
    )
    with gr.Blocks():
        tab = CompareTab(parts, [])
    loaded = ("the loaded model", "automatic", "Precise")
    shown = {}
    async for update in tab._compare(None, "Hi", 3, *loaded, "org/none", "automatic", "Precise", *loaded, *loaded):
        shown |= update
    answers = [shown[column.answer] for column in tab._columns[:3]]
    assert answers == ["Hello.", "**No answer:** org/none cannot be found", "Hello."]
    assert shown[tab.state] == ""
    # There is something to stop only from then on.
    assert not tab.stop.interactive and shown[tab.stop].interactive
