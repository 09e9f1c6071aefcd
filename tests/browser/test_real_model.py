"""The panel on the real embedded model: chat, stop, look inside, serve, and an end that leaves nothing behind."""

from __future__ import annotations

import re
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
# What a kernel holds: our threads by name, ports that it listens on (some are its own), and child processes.
_HELD = """
import os, threading, psutil

def held():
    kernel = psutil.Process()
    return {
        'threads': sorted(one.name for one in threading.enumerate() if one.name.startswith('workbench-')),
        'ports': sorted(one.laddr.port for one in kernel.net_connections('tcp') if one.status == 'LISTEN'),
        'children': sorted(child.pid for child in kernel.children(recursive=True)),
    }

def held_at_rest():
    panel.plan_card.wait(60), panel.picker.wait(60), panel.chat._meter.wait(60)
    return held()

empty = held()
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
def page(open_notebook):
    """A notebook with the cell that shows the panel, not yet run."""
    return open_notebook("real.ipynb", _SHOW_PANEL)


@pytest.fixture
def lab(page, is_rerun, embedded_model_folder):
    """The page with the model loaded in its panel; loaded once, and again where a test has ended it."""
    if is_rerun:
        page.start_over()
    if page.page.locator(".wb-load[data-state=ready]").count() == 0:
        page.execute(f"{_HELD}\nos.environ['WORKBENCH_HOME'] = {str(embedded_model_folder.parents[1])!r}")
        page.run_all()
        page.button("Load").click()
        page.wait_for_text(".wb-load .wb-headline", "default is ready: ", timeout_s=180)
    return page


def test_chat_and_stop(lab):
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
    url = _serve(lab)
    card = lab.section("Endpoint")
    lab.button("Test streaming").click()
    expect(card).to_contain_text("Streams: ")
    lab.button("Copy key").click()
    expect(card).to_contain_text("Copied")
    key = lab.page.evaluate("() => navigator.clipboard.readText()")
    assert httpx.get(f"{url}/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert key not in lab.page.locator(".wb-panel").inner_text()
    lab.screenshot("real-endpoint")


def test_a_cell_that_is_run_again_leaves_nothing_of_the_earlier_panel(lab):
    url = _serve(lab)
    lab.execute("before, earlier = held_at_rest(), panel")
    lab.run_all()
    expect(lab.page.locator(".wb-panel")).to_have_count(1)
    # Model and endpoint are handed over; not one thing more is there than before.
    lab.wait_until("earlier.comm is None and held() == before")
    assert _answers(url)
    # Another wish ends all that the earlier one had.
    lab.execute("Workbench(backend='cpu', context_length=512).close()")
    lab.wait_until("held() == empty")
    assert not _answers(url)


def test_a_closed_tab_leaves_nothing_more_behind(lab):
    url = _serve(lab)
    lab.show_plot()
    lab.execute("before = held_at_rest()")
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.close_tab()
    # Jupyter lets the kernel go on with what it was told to hold; nothing more is there, and the panel comes back.
    lab.open_tab()
    lab.page.locator(".wb-load[data-state=ready]").wait_for()
    lab.wait_until("held() == before")
    assert _answers(url)


def test_a_restarted_kernel_leaves_no_server_socket_or_child(lab):
    url = _serve(lab)
    before = _kernels()
    assert any(connection.laddr.port == int(url.split(":")[2].split("/")[0]) for connection in _listening(before))
    lab.restart_kernel()
    deadline_s = time.monotonic() + LIMIT_S
    while (set(before) & set(_kernels()) or _answers(url)) and time.monotonic() < deadline_s:
        lab.page.wait_for_timeout(100)
    assert not set(before) & set(_kernels())
    assert not _answers(url)
    # What is left on the page says so.
    lab.page.locator(".wb-panel.jupyter-widgets-disconnected").first.wait_for()
    words = lab.page.evaluate("() => getComputedStyle(document.querySelector('.wb-panel'), '::before').content")
    assert "run the cell again" in words


def _serve(lab):
    """The endpoint's address, with the endpoint on."""
    card = lab.section("Endpoint")
    expect(card).to_contain_text(re.compile("Not serving|On this machine"))
    if "Not serving" in card.inner_text():
        lab.button("Start serving").click()
    expect(card).to_contain_text("On this machine")
    return card.locator("code").first.inner_text()


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
        httpx.get(url, timeout=LIMIT_S)
    except httpx.HTTPError:
        return False
    return True
