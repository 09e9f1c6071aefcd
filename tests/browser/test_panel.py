"""The panel in JupyterLab on an engine that does only what the test lets it do."""

from __future__ import annotations

import nbformat
import pytest
from browser.conftest import WIDE
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

_SHOW_PANEL = """
from fake_llm import FakeFactory, Gate
from widgets import Workbench
from workbench.session import Session

factory = FakeFactory(words=["Hello", " <b>there</b>", ", see:\\n", "```python\\n", "print(1)\\n", "```\\n", "Done."])
panel = Workbench(session=Session(factory), system="Be brief.")
panel
"""


_WAIT_UNTIL_SEEN_IS = """
import time
deadline = time.monotonic() + 20
while panel.plot.note.is_seen != {seen} and time.monotonic() < deadline: time.sleep(0.01)
assert panel.plot.note.is_seen == {seen}
"""


@pytest.fixture(scope="module")
def page_with_cell(server, open_notebook):
    """A notebook with the cell that shows the panel, not yet run."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(_SHOW_PANEL)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), server.root / "panel.ipynb")
    return open_notebook("panel.ipynb")


@pytest.fixture
def lab(page_with_cell):
    """The page with a fresh panel; at the end nothing may have gone wrong on it."""
    lab = page_with_cell
    lab.page.set_viewport_size(WIDE)
    lab.set_theme("JupyterLab Light")
    lab.run_all()
    expect(lab.page.locator(".wb-headline")).to_have_text("No model loaded", timeout=60_000)
    yield lab
    assert lab.take_problems() == []


def _load(lab):
    lab.button("Load").click()
    lab.wait_for_text(".wb-headline", "default is ready")


def _ask(lab, text="Hi"):
    lab.message_box.fill(text)
    lab.button("Send").click()


def test_pick_load_chat_stop_watch_and_unload(lab):
    lab.screenshot("panel-empty-light")

    unavailable = lab.page.get_by_label("Backend").locator("option[disabled]")
    assert "not available: " in unavailable.first.text_content()
    lab.page.get_by_label("Backend").select_option("cpu")
    lab.page.get_by_label("Precision").select_option("fp32")
    expect(lab.button("Send")).to_have_count(0)

    lab.execute("factory.load_gate = Gate(is_open=False)")
    lab.button("Load").click()
    lab.wait_for_text(".wb-load", "load weights: 0 MB of 4 MB")
    lab.execute("factory.load_gate.let(2)")
    lab.wait_for_text(".wb-load", "load weights: 2 MB of 4 MB")
    lab.screenshot("panel-loading-light")
    lab.execute("factory.load_gate.open()")
    lab.wait_for_text(".wb-headline", "default is ready: cpu, fp32")

    # The first beat with an engine is where its tokens are counted from.
    lab.execute("panel.plot.sampler.beat()")
    # Streaming: a part of the reply is on the page while the engine is held.
    lab.execute("factory.made[0]._gate = Gate(is_open=False)\nfactory.made[0]._gate.let(2)")
    _ask(lab)
    expect(lab.replies.last).to_contain_text("Hello <b>there</b>")
    expect(lab.replies.last).to_contain_text("writing")
    expect(lab.replies.last.locator("b")).to_have_count(0)
    expect(lab.message_box).to_have_value("")
    lab.button("Stop").click()
    expect(lab.replies.last).to_contain_text("Stopped, 2 tokens")
    expect(lab.replies.last).to_contain_text("Hello <b>there</b>")

    lab.execute("factory.made[0]._gate.open()")
    _ask(lab, "Once more")
    expect(lab.replies.last).to_contain_text("7 tokens, 40.0 tokens/s, first token after 0.25 s")
    expect(lab.replies.last.locator("pre")).to_have_text("print(1)")
    expect(lab.replies).to_have_count(2)

    lab.wait_for_points(at_least=3)
    lab.wait_for_rate()
    lab.screenshot("panel-ready-light")

    lab.button("Unload").click()
    lab.wait_for_text(".wb-headline", "unloading freed 500 MB on cpu")
    expect(lab.page.locator(".wb-chat")).to_contain_text("Load a model to chat.")


def test_cancel_and_a_failed_load(lab):
    lab.execute("factory.load_gate = Gate(is_open=False)")
    lab.button("Load").click()
    lab.button("Cancel").click()
    lab.execute("factory.load_gate.open()")
    lab.wait_for_text(".wb-headline", "No model loaded")

    lab.execute(
        "from workbench.errors import ModelNotFoundError\n"
        "factory.load_error = ModelNotFoundError('no model <i>here</i>')"
    )
    lab.page.get_by_label("Model", exact=True).select_option(label="Other…")
    lab.page.get_by_label("Folder, .gguf file or hub id").fill("no/where")
    lab.page.get_by_label("Folder, .gguf file or hub id").press("Tab")
    lab.button("Load").click()
    alert = lab.page.get_by_role("alert").filter(has_text="Failed")
    expect(alert).to_contain_text("no model <i>here</i>")
    expect(alert).to_contain_text("Next step: Check the spelling")
    lab.wait_for_text(".wb-headline", "no/where could not be loaded")
    lab.screenshot("panel-failed-light")


def test_the_keyboard_is_enough(lab):
    press = lab.page.keyboard.press
    lab.page.get_by_label("Model", exact=True).focus()
    for _ in range(3):
        press("Tab")
    expect(lab.page.locator(":focus")).to_have_text("Load")
    press("Enter")
    lab.wait_for_text(".wb-headline", "default is ready")
    lab.execute("factory.made[0]._gate = Gate(is_open=False)\nfactory.made[0]._gate.let(1)")
    for _ in range(4):
        press("Tab")
    expect(lab.message_box).to_be_focused()
    lab.page.keyboard.type("first line")
    press("Shift+Enter")
    lab.page.keyboard.type("second line")
    press("Enter")
    expect(lab.page.locator(".wb-message[data-role=user] .wb-prose")).to_have_text("first line\nsecond line")
    expect(lab.replies.last).to_contain_text("Hello")
    press("Escape")
    expect(lab.replies.last).to_contain_text("Stopped")
    # Lab's own shortcuts did not act on the keys: the cell is still there, and still one.
    assert lab.page.locator(".jp-Notebook .jp-CodeCell").count() == 1


def test_a_reload_shows_the_same_panel_and_a_rerun_replaces_it(lab):
    _load(lab)
    _ask(lab)
    expect(lab.replies.last).to_contain_text("7 tokens")
    lab.execute("factory.made[0]._gate = Gate(is_open=False)\nfactory.made[0]._gate.let(2)")
    _ask(lab, "Again")
    expect(lab.replies.last).to_contain_text("there")

    # The output with the panel must be in the saved notebook to come back with the page.
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.reload()
    expect(lab.replies).to_have_count(2, timeout=60_000)
    expect(lab.replies.last).to_contain_text("Hello <b>there</b>")
    lab.execute("factory.made[0]._gate.open()")
    expect(lab.replies.last).to_contain_text("Done.")
    expect(lab.replies.last).to_contain_text("7 tokens")
    lab.wait_for_points(at_least=2)

    lab.execute("earlier = panel")
    lab.run_all()
    expect(lab.page.locator(".wb-message")).to_have_count(0)
    expect(lab.page.locator(".wb-panel")).to_have_count(1)
    lab.execute(
        "import threading\n"
        "assert earlier.comm is None\n"
        "assert [t.name for t in threading.enumerate()].count('workbench-sampler') == 1"
    )


def test_nothing_is_drawn_while_the_panel_is_out_of_sight(lab):
    lab.wait_for_points(at_least=2)
    _load(lab)
    # Another main-area tab covers the notebook.
    lab.cover()
    lab.execute(_WAIT_UNTIL_SEEN_IS.format(seen=False))
    lab.uncover()
    lab.execute(_WAIT_UNTIL_SEEN_IS.format(seen=True))


def test_dark_theme_and_a_narrow_page(lab):
    lab.set_theme("JupyterLab Dark")
    _load(lab)
    _ask(lab, "Say something long")
    expect(lab.replies.last).to_contain_text("7 tokens")
    lab.wait_for_points(at_least=3)
    lab.screenshot("panel-ready-dark")
    assert _lowest_contrast(lab) >= 4.5

    lab.page.set_viewport_size({"width": 560, "height": 1150})
    lab.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    lab.page.evaluate("() => { document.querySelector('.wb-panel').style.width = '360px'; }")
    lab.page.wait_for_function(
        "() => document.querySelector('.wb-live .main-svg').getBoundingClientRect().width <= 360", timeout=10_000
    )
    lab.page.locator(".wb-picker").scroll_into_view_if_needed()
    lab.screenshot("panel-360px-dark")
    lab.page.locator(".wb-live").scroll_into_view_if_needed()
    lab.screenshot("panel-360px-dark-plot")
    assert _too_wide(lab, 360) == []

    lab.set_theme("JupyterLab Light")
    assert _lowest_contrast(lab) >= 4.5


def test_every_control_has_a_name_and_the_plot_has_words(lab):
    names = lab.page.evaluate(
        """() => [...document.querySelectorAll('.wb-panel :is(button, select, input, textarea)')]
            .filter((node) => node.offsetParent !== null)
            .map((node) => [node.tagName, node.labels?.[0]?.innerText.trim() || node.innerText.trim()])"""
    )
    assert len(names) >= 10
    assert [tag for tag, name in names if not name] == []
    lab.wait_for_points(at_least=2)
    plot = lab.page.locator(".wb-live [role=img]")
    assert "GB now" in plot.get_attribute("aria-label")
    lab.page.get_by_text("Data table").click()
    expect(lab.page.locator(".wb-table tbody tr").first).to_be_visible()
    assert lab.page.locator(".wb-table th").all_inner_texts() == ["Seconds", "This process", "Generation"]


def _too_wide(lab, width):
    """Elements of the panel that stick out of it (scrolling boxes may hold wider things)."""
    return lab.page.evaluate(
        """(width) => {
            const left = document.querySelector('.wb-panel').getBoundingClientRect().left;
            return [...document.querySelectorAll('.wb-panel *')]
                .filter((node) => !node.closest('.wb-log pre, .wb-table, .wb-unseen, .js-plotly-plot'))
                .filter((node) => node.getBoundingClientRect().right > left + width + 1)
                .map((node) => `${node.tagName}.${node.className}`);
        }""",
        width,
    )


def _lowest_contrast(lab):
    """The lowest contrast (WCAG 2) between text and its background over what can be used in the panel."""
    return lab.page.evaluate(
        """() => {
            const parse = (color) => color.match(/[\\d.]+/g).map(Number);
            const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
            const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            const light = (rgb) => {
                const [r, g, b] = rgb.map((c) => linear(c / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const background = (node) => {
                if (!node) return [255, 255, 255];
                const color = parse(getComputedStyle(node).backgroundColor);
                return color[3] === 0 ? background(node.parentElement) : over(color, background(node.parentElement));
            };
            const contrast = (node) => {
                const under = background(node);
                const text = over(parse(getComputedStyle(node).color), under);
                const [dark, bright] = [light(text), light(under)].sort((a, b) => a - b);
                return (bright + 0.05) / (dark + 0.05);
            };
            const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
            const ratios = [...document.querySelectorAll('.wb-panel *')]
                .filter((node) => hasText(node) && node.offsetParent !== null)
                .filter((node) => !node.closest('[aria-disabled=true], option, .js-plotly-plot'))
                .map(contrast);
            return Math.min(...ratios);
        }"""
    )
