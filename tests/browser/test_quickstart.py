"""The quickstart notebook in JupyterLab, on the real model."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

_NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "01_quickstart.ipynb"
# Counts how often the text of the last reply changes: a reply that streams changes many times.
_COUNT_CHANGES = """() => {
    window.numChanges = 0;
    const count = () => { window.numChanges += 1; };
    new MutationObserver(count).observe(document.querySelector('.wb-log'), {
        subtree: true, characterData: true, childList: true,
    });
}"""


@pytest.fixture(scope="module")
def lab(server, open_notebook, embedded_model_folder):
    shutil.copy(_NOTEBOOK, server.root)
    return open_notebook(_NOTEBOOK.name)


def test_run_the_notebook_load_chat_stop_and_unload(lab):
    lab.run_all()
    lab.page.locator(".wb-panel .wb-chat").wait_for(timeout=60_000)
    expect(lab.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)

    lab.button("Load").click()
    lab.wait_for_text(".wb-headline", "default is ready: ", timeout_s=120)
    lab.page.locator(".wb-panel").scroll_into_view_if_needed()

    lab.page.evaluate(_COUNT_CHANGES)
    lab.message_box.fill("What is the capital of France?")
    lab.message_box.press("Enter")
    reply = lab.replies.last
    expect(reply).to_contain_text("first token after", timeout=60_000)
    expect(reply).to_contain_text("tokens/s")
    expect(reply).to_contain_text("Paris")

    lab.message_box.fill("Tell me a very long story about a lighthouse keeper.")
    lab.message_box.press("Enter")
    reply = lab.replies.last
    expect(reply.locator(".wb-prose")).not_to_be_empty(timeout=60_000)
    lab.page.wait_for_function("() => window.numChanges > 20", timeout=60_000)
    lab.wait_for_rate()
    started_s = time.monotonic()
    lab.button("Stop").click()
    expect(reply).to_contain_text("Stopped")
    assert time.monotonic() - started_s < 5
    text = reply.locator(".wb-prose").inner_text()
    assert len(text) > 20
    expect(lab.button("Send")).to_have_count(1)

    lab.wait_for_points(at_least=5)
    lab.screenshot("quickstart-chat")
    lab.button("Unload").click()
    freed = lab.wait_for_text(".wb-headline", "unloading freed", timeout_s=60)
    assert " MB on " in freed or " GB on " in freed
    # Nothing came after the stop.
    assert reply.locator(".wb-prose").inner_text() == text
    assert lab.take_problems() == []
