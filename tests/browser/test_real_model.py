"""The panel on the real embedded model: chat, stop, look inside, serve, and an end that leaves nothing behind."""

from __future__ import annotations

import time

import httpx
import psutil
import pytest
from browser.lab_page import LIMIT_S
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

_SHOW_PANEL = """
from widgets import Workbench

panel = Workbench(backend="cpu", context_length=1024)
panel
"""
# Counts how often the text of the last reply changes: a reply that streams changes many times.
_COUNT_CHANGES = """() => {
    window.numChanges = 0;
    const count = () => { window.numChanges += 1; };
    new MutationObserver(count).observe(document.querySelector('.wb-log'), {
        subtree: true, characterData: true, childList: true,
    });
}"""


@pytest.fixture(scope="module")
def lab(open_notebook, embedded_model_folder):
    lab = open_notebook("real.ipynb", _SHOW_PANEL)
    lab.execute(f"import os\nos.environ['WORKBENCH_HOME'] = {str(embedded_model_folder.parents[1])!r}")
    lab.run_all()
    lab.page.locator(".wb-panel .wb-chat").wait_for()
    return lab


def test_load_chat_and_stop(lab):
    lab.button("Load").click()
    lab.wait_for_text(".wb-load .wb-headline", "default is ready: ", timeout_s=120)
    expect(lab.page.locator(".wb-plan .wb-figures")).to_contain_text("Weights")

    lab.page.evaluate(_COUNT_CHANGES)
    lab.message_box.fill("What is the capital of France?")
    lab.message_box.press("Enter")
    reply = lab.replies.last
    expect(reply).to_contain_text("first token after")
    expect(reply).to_contain_text("Paris")

    lab.message_box.fill("Tell me a very long story about a lighthouse keeper.")
    lab.message_box.press("Enter")
    reply = lab.replies.last
    expect(reply.locator(".wb-block")).not_to_have_count(0)
    lab.page.wait_for_function("() => window.numChanges > 20")
    lab.button("Stop").click()
    expect(reply).to_contain_text("Stopped")
    text = reply.locator(".wb-text").inner_text()
    lab.screenshot("real-chat")
    assert len(text) > 20
    # Nothing comes after the stop.
    lab.execute("assert panel.session.stats().num_running == 0")
    assert reply.locator(".wb-text").inner_text() == text


def test_look_inside(lab):
    inside = lab.section("Look inside")
    inside.get_by_label("Text to score").fill("The capital of France is Paris.")
    lab.button("Score").click()
    expect(inside.locator(".wb-token")).to_have_count(7)
    inside.get_by_label("Text", exact=True).fill("The capital of France is")
    lab.button("Show next tokens").click()
    expect(inside.locator(".wb-next .wb-alternative").first).to_contain_text("Paris")
    lab.screenshot("real-inside")


def test_serve(lab):
    card = lab.section("Endpoint")
    lab.button("Start serving").click()
    expect(card).to_contain_text("On this machine")
    lab.button("Test streaming").click()
    expect(card).to_contain_text("Streams: ")
    lab.button("Copy key").click()
    expect(card).to_contain_text("Copied")
    key = lab.page.evaluate("() => navigator.clipboard.readText()")
    url = card.locator("code").first.inner_text()
    assert httpx.get(f"{url}/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert key not in lab.page.locator(".wb-panel").inner_text()
    lab.screenshot("real-endpoint")


def test_a_restarted_kernel_leaves_no_server_socket_or_child(lab):
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    url = lab.section("Endpoint").locator("code").first.inner_text()
    before = _kernels()
    assert any(connection.laddr.port == int(url.split(":")[2].split("/")[0]) for connection in _listening(before))
    lab.restart_kernel()
    deadline_s = time.monotonic() + LIMIT_S
    while (set(before) & set(_kernels()) or _answers(url)) and time.monotonic() < deadline_s:
        lab.page.wait_for_timeout(100)
    assert not set(before) & set(_kernels())
    assert not _answers(url)


def _kernels():
    """Processes of kernels and what they started, below this test."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "ipykernel_launcher" in " ".join(_command(child))]


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _listening(processes):
    return [
        connection
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def _answers(url):
    try:
        httpx.get(url, timeout=1)
    except httpx.HTTPError:
        return False
    return True
