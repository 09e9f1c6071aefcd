"""The panel in JupyterLab on an engine that does only what the test lets it do: each capability used once."""

from __future__ import annotations

import json

import pytest
from browser.conftest import WIDE
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

_SHOW_PANEL = r"""
from fake_llm import FakeFactory, Gate
from widgets import Workbench
from workbench.session import Session

WORDS = ["Hello", " <b>there</b>", ", see:\n\n", "```python\n", "print(1)\n", "```\n\n", "So $x^2$ it is."]
factory = FakeFactory(words=WORDS)
panel = Workbench(model="random:tiny", backend="cpu", session=Session(factory), system="Be brief.")
panel
"""


@pytest.fixture(scope="module")
def page_with_cell(open_notebook):
    """A notebook with the cell that shows the panel, not yet run."""
    return open_notebook("panel.ipynb", _SHOW_PANEL)


@pytest.fixture
def lab(page_with_cell, is_rerun):
    """The page with a fresh panel; at the end nothing may have gone wrong on it."""
    lab = page_with_cell
    if is_rerun:
        lab.start_over()
    lab.page.set_viewport_size(WIDE)
    lab.set_theme("JupyterLab Light")
    lab.run_all()
    expect(lab.page.locator(".wb-headline").first).to_have_text("No model loaded")
    expect(lab.page.locator(".wb-plan[data-state=ready]")).to_be_visible(timeout=60_000)
    yield lab
    assert lab.take_problems() == []


def _load(lab):
    lab.button("Load").click()
    lab.wait_for_text(".wb-load .wb-headline", "is ready")


def _ask(lab, text="Hi"):
    lab.message_box.fill(text)
    lab.button("Send").click()


def _hold_engine(lab, num_words):
    lab.execute(f"factory.made[-1]._gate = Gate(is_open=False)\nfactory.made[-1]._gate.let({num_words})")


def test_choose_predict_and_take_advice(lab):
    picker = lab.page.locator(".wb-picker")
    assert "not available: " in picker.get_by_label("Backend").locator("option[disabled]").first.text_content()
    expect(picker).to_contain_text("The model allows up to 2,048.")
    expect(lab.page.locator(".wb-verdict")).to_contain_text("fits")
    lab.screenshot("panel-empty-light")

    # The plan follows each control.
    picker.get_by_label("Weights").select_option("fp32")
    expect(lab.page.locator(".wb-plan-head")).to_contain_text("fp32 weights")
    picker.get_by_label("Context length").fill("128")
    picker.get_by_label("Context length").press("Tab")
    expect(lab.page.locator(".wb-plan-head")).to_contain_text("context 128 of 2,048")
    picker.get_by_label("Context length").fill("9999")
    picker.get_by_label("Context length").press("Tab")
    expect(picker.get_by_role("alert")).to_contain_text("trained for at most 2048")

    # Over several devices, with sizes of its own: here they are processes on the CPU.
    picker.get_by_text("More: cache precision").click()
    picker.get_by_label("Several devices").select_option("data")
    picker.get_by_label("Replicas", exact=True).fill("3")
    picker.get_by_label("Replicas", exact=True).press("Tab")
    expect(lab.page.locator(".wb-plan")).to_contain_text("cpu:2")
    expect(lab.page.locator(".wb-plan")).to_contain_text("the processes share the cores and the memory")
    picker.get_by_label("Several devices").select_option("auto")
    expect(picker.get_by_label("Replicas", exact=True)).to_be_hidden()

    # What does not fit gets advice, each a button that sets the panel.
    picker.get_by_label("Model", exact=True).select_option(label="Other…")
    picker.get_by_label("Folder, .gguf file or hub id").fill("random:llama-3.1-8b")
    picker.get_by_label("Folder, .gguf file or hub id").press("Tab")
    expect(lab.page.locator(".wb-verdict")).to_contain_text("does not fit")
    lab.screenshot("panel-advice-light")
    advice = lab.page.locator(".wb-advice button").first
    advice.click()
    expect(lab.page.locator(".wb-verdict")).not_to_contain_text("does not fit")

    # A default saved for a model comes back with it.
    lab.button("Save as default").click()
    expect(lab.button("Replace default")).to_have_count(1)
    lab.button("Forget default").click()
    expect(lab.button("Save as default")).to_have_count(1)
    lab.execute(
        "from workbench.models.hub_search import HubModel\n"
        "panel.picker._hub_finder._search = lambda text: [HubModel('org/' + text, 8 * 10**9, 16 * 10**9, 1, False)]"
    )
    picker.get_by_label("Search the Hugging Face Hub").fill("llama")
    picker.get_by_label("Search the Hugging Face Hub").press("Enter")
    expect(picker.locator(".wb-results")).to_contain_text("8.0 billion weights, 16.0 GB")
    lab.screenshot("panel-choice-open-light")


def test_load_with_progress_compare_and_unload(lab):
    lab.execute("factory.load_gate = Gate(is_open=False)")
    lab.button("Load").click()
    lab.wait_for_text(".wb-load", "load weights: 0 MB of 4 MB")
    lab.execute("factory.load_gate.let(2)")
    lab.wait_for_text(".wb-load", "load weights: 2 MB of 4 MB")
    lab.screenshot("panel-loading-light")
    lab.execute("factory.load_gate.open()")
    lab.wait_for_text(".wb-load .wb-headline", "random:tiny is ready: cpu, fp32")
    # Measured beside predicted.
    expect(lab.page.locator(".wb-plan .wb-figures")).to_contain_text("Weights")
    lab.button("Unload").click()
    lab.wait_for_text(".wb-load .wb-headline", "unloading freed 500 MB on cpu")
    expect(lab.page.locator(".wb-chat")).to_contain_text("Load a model to chat.")
    # What still holds the memory is said.
    lab.execute(
        "from workbench.unload_receipt import UnloadReceipt\n"
        "panel.load_bar.receipt = UnloadReceipt({'cpu': 1}, 10**9, ('the variable x (1.00 GB)',)).lines()"
    )
    expect(lab.page.locator(".wb-receipt")).to_contain_text("still held by the variable x (1.00 GB)")


def test_cancel_and_a_failed_load(lab):
    lab.execute("factory.load_gate = Gate(is_open=False)")
    lab.button("Load").click()
    lab.page.locator(".wb-load button", has_text="Cancel").click()
    lab.execute("factory.load_gate.open()")
    lab.wait_for_text(".wb-load .wb-headline", "No model loaded")
    lab.execute(
        "from workbench.errors import ModelNotFoundError\n"
        "factory.load_error = ModelNotFoundError('no model <i>here</i>')"
    )
    lab.button("Load").click()
    alert = lab.page.get_by_role("alert").filter(has_text="Failed")
    expect(alert).to_contain_text("no model <i>here</i>")
    expect(alert).to_contain_text("Next step: Check the spelling")
    lab.screenshot("panel-failed-light")


def test_chat_streams_and_keeps_versions_branches_and_presets(lab):
    _load(lab)
    _hold_engine(lab, 2)
    _ask(lab)
    # A part of the reply is on the page while the engine is held; its markup is text.
    expect(lab.replies.last).to_contain_text("Hello <b>there</b>")
    expect(lab.replies.last).to_contain_text("writing")
    expect(lab.replies.last.locator("b")).to_have_count(0)
    expect(lab.message_box).to_have_value("")
    lab.button("Stop").click()
    expect(lab.replies.last).to_contain_text("Stopped, 2 tokens")

    lab.execute("factory.made[-1]._gate.open()")
    _ask(lab, "Once more")
    expect(lab.replies.last).to_contain_text("7 tokens, 40.0 tokens/s, first token after 0.25 s, context 14 of 2,048")
    expect(lab.replies.last.locator("pre")).to_have_text("print(1)\n")
    expect(lab.replies.last.locator("pre .nb")).to_have_text("print")
    expect(lab.replies.last.locator("math msup")).to_have_count(1)
    expect(lab.page.locator(".wb-meter")).to_contain_text("of 2,048 tokens")
    lab.screenshot("panel-chat-light")

    # Versions of a reply, an edited question, and going on.
    lab.execute("factory.made[-1]._words = ['Another.']")
    lab.replies.last.get_by_role("button", name="Another version of this reply").click()
    expect(lab.replies.last).to_contain_text("2 of 2")
    expect(lab.replies.last.locator(".wb-text")).to_have_text("Another.")
    lab.replies.last.get_by_role("button", name="Version before").click()
    expect(lab.replies.last).to_contain_text("So ")
    lab.replies.last.get_by_role("button", name="Version after").click()
    lab.execute("factory.made[-1]._words = [' And on.']")
    lab.button("Continue").click()
    expect(lab.replies.last.locator(".wb-text")).to_have_text("Another. And on.")
    question = lab.page.locator(".wb-message[data-role=user]").last
    question.get_by_role("button", name="Change this message").click()
    lab.page.get_by_label("New text of the message").fill("Changed")
    lab.page.get_by_label("New text of the message").press("Control+Enter")
    expect(lab.page.locator(".wb-message[data-role=user] .wb-text").last).to_have_text("Changed")
    expect(lab.replies.last.locator(".wb-text")).to_have_text("And on.")

    # Saved to a file, forgotten, and opened again.
    with lab.page.expect_download() as download:
        lab.button("Export").click()
    path = download.value.path()
    assert json.loads(path.read_text())["format"] == "workbench.conversations"
    lab.button("New chat").click()
    expect(lab.page.locator(".wb-message")).to_have_count(0)
    lab.page.get_by_label("Conversation file").set_input_files(path)
    expect(lab.page.locator(".wb-message[data-role=user] .wb-text").last).to_have_text("Changed")
    lab.replies.first.get_by_role("button", name="Go on from here in a new conversation").click()
    expect(lab.page.locator(".wb-message")).to_have_count(2)

    # A preset and a setting of one's own go with the next request.
    lab.page.get_by_text("System prompt, presets and sampling").click()
    lab.page.get_by_label("Preset", exact=True).select_option("Short")
    expect(lab.page.get_by_label("System prompt", exact=True)).to_have_value("Answer in one or two sentences.")
    lab.page.get_by_label("Top-k").fill("5")
    lab.page.get_by_label("Top-k").press("Tab")
    lab.page.get_by_label("Top-p").fill("7")
    lab.page.get_by_label("Top-p").press("Tab")
    expect(lab.page.locator(".wb-chat > .wb-problem")).to_contain_text("top_p=7")
    _ask(lab, "Again")
    expect(lab.replies.last).to_contain_text("And on.")
    lab.execute("assert factory.made[-1].requests[-1]['top_k'] == 5")
    lab.execute("assert factory.made[-1].requests[-1]['messages'][0]['content'].startswith('Answer in one')")
    lab.screenshot("panel-settings-light")


def test_look_inside_by_pointer_and_keyboard(lab):
    _load(lab)
    lab.page.get_by_text("System prompt, presets and sampling").click()
    lab.page.get_by_label("Look inside").check()
    lab.page.wait_for_timeout(0)
    _ask(lab)
    lab.replies.last.get_by_role("button", name="How sure the model was of each token").click()
    heat = lab.page.locator(".wb-heat")
    expect(heat.locator(".wb-token")).to_have_count(7)
    heat.locator(".wb-token").nth(2).hover()
    expect(heat.locator(".wb-token-detail")).to_contain_text("“C” 61 %")
    heat.get_by_role("listbox").focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        lab.page.keyboard.press(key)
    expect(heat.locator(".wb-alternative").first).to_be_focused()
    lab.screenshot("panel-heatmap-light")
    lab.execute("factory.made[-1]._words = [' on from it']")
    lab.page.keyboard.press("ArrowDown")
    lab.page.keyboard.press("Enter")
    expect(lab.replies.last).to_contain_text("ABCE on from it")
    expect(lab.replies.last).to_contain_text("2 of 2")


def test_the_live_plot_pauses_changes_its_window_and_warns(lab):
    lab.wait_for_points(at_least=2)
    controls = lab.page.locator(".wb-monitor")
    controls.get_by_label("Window").select_option("300")
    lab.page.wait_for_function(
        "() => document.querySelector('.wb-live .js-plotly-plot').layout.xaxis.range[0] === -295"
    )
    controls.get_by_label("Line at % of memory").fill("1")
    controls.get_by_label("Line at % of memory").press("Tab")
    lab.page.wait_for_function("() => document.querySelector('.wb-live .js-plotly-plot').layout.shapes?.length > 0")
    lab.execute("panel.plot.draw()")
    lab.button("Pause").click()
    expect(lab.button("Go on")).to_have_count(1)
    lab.execute("panel.plot._drawn = None\nbefore = panel.plot._drawn_at_s\npanel.plot.sampler.beat()")
    lab.execute("assert panel.plot._drawn_at_s == before")
    lab.button("Go on").click()
    plot = lab.page.locator(".wb-live [role=img]")
    assert "GB now" in plot.get_attribute("aria-label")
    lab.page.get_by_text("In words and as a table").click()
    expect(controls.locator("tbody tr").first).to_be_visible()


def test_history_carry_on_and_gpus(lab):
    _load(lab)
    _ask(lab)
    expect(lab.replies.last).to_contain_text("7 tokens")
    history = lab.section("Run history")
    expect(history.locator("tbody tr")).to_have_count(2)
    for box in history.get_by_role("checkbox").all():
        box.check()
    expect(history).to_contain_text("Where they differ")
    with lab.page.expect_download() as download:
        lab.button("Download CSV").click()
    assert download.value.path().read_text().startswith("number,kind,at,model")

    carry = lab.section("Carry on elsewhere")
    expect(carry).to_contain_text('LlamaGPU("random:tiny"'.replace('"', "'"))
    carry.get_by_label("Open a choice").fill("workbench serve --model random:tiny --backend cpu --context-length 64")
    lab.button("Take this choice").click()
    expect(lab.page.get_by_label("Context length")).to_have_value("64")
    carry.get_by_role("button", name="Copy Code cell").click()
    assert "context_length=64" in lab.page.evaluate("() => navigator.clipboard.readText()")

    expect(lab.section("GPUs")).to_contain_text("GPU")
    expect(lab.section("Endpoint")).to_contain_text("Not serving")
    lab.page.locator(".wb-panel").evaluate("(node) => node.scrollIntoView({ block: 'end' })")
    lab.screenshot("panel-sections-light")


def test_the_keyboard_is_enough(lab):
    press = lab.page.keyboard.press

    def tab_to(text):
        for _ in range(40):
            press("Tab")
            focused = lab.page.locator(":focus")
            if focused.inner_text() == text or focused.get_attribute("title") == text:
                return
        raise AssertionError(f"no way to {text} by Tab")

    lab.page.get_by_label("Model", exact=True).focus()
    tab_to("Load")
    press("Enter")
    lab.wait_for_text(".wb-load .wb-headline", "is ready")
    _hold_engine(lab, 1)
    tab_to("What to say to the model")
    lab.page.keyboard.type("first line")
    press("Shift+Enter")
    lab.page.keyboard.type("second line")
    press("Enter")
    expect(lab.page.locator(".wb-message[data-role=user] .wb-plain")).to_have_text("first line\nsecond line")
    expect(lab.replies.last).to_contain_text("Hello")
    press("Escape")
    expect(lab.replies.last).to_contain_text("Stopped")
    # Lab's own shortcuts did not act on the keys: the cell is still there, and still one.
    assert lab.page.locator(".jp-Notebook .jp-CodeCell").count() == 1


def test_a_reload_shows_the_same_panel_and_a_rerun_replaces_it(lab):
    _load(lab)
    _ask(lab)
    expect(lab.replies.last).to_contain_text("7 tokens")
    _hold_engine(lab, 2)
    _ask(lab, "Again")
    expect(lab.replies.last).to_contain_text("there")

    # The output with the panel must be in the saved notebook to come back with the page.
    lab.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lab.reload()
    expect(lab.replies).to_have_count(2)
    expect(lab.replies.last).to_contain_text("Hello <b>there</b>")
    lab.execute("factory.made[0]._gate.open()")
    expect(lab.replies.last).to_contain_text("So ")
    lab.wait_for_points(at_least=2)

    # Another tab over it: nothing is drawn.
    lab.cover()
    lab.wait_until("not panel.plot.note.is_seen")
    lab.uncover()
    lab.wait_until("panel.plot.note.is_seen")

    lab.execute("earlier = panel")
    lab.run_all()
    expect(lab.page.locator(".wb-message")).to_have_count(0)
    expect(lab.page.locator(".wb-panel")).to_have_count(1)
    lab.execute(
        "import threading\n"
        "assert earlier.comm is None\n"
        "assert [t.name for t in threading.enumerate()].count('workbench-sampler') == 1"
    )


def test_it_is_accessible_and_fits_narrow_and_dark_pages(lab):
    _load(lab)
    _ask(lab)
    expect(lab.replies.last).to_contain_text("7 tokens")
    for title in ("Endpoint", "Look inside", "GPUs", "Run history", "Carry on elsewhere"):
        lab.section(title)
    lab.wait_for_points(at_least=2)
    assert lab.violations() == []
    lab.set_theme("JupyterLab Dark")
    lab.page.evaluate("() => document.querySelector('.wb-panel').scrollIntoView()")
    lab.screenshot("panel-dark")
    assert lab.violations() == []

    lab.page.locator(".wb-panel").evaluate("(node) => { node.style.width = '360px'; }")
    lab.page.wait_for_function("() => document.querySelector('.wb-live .js-plotly-plot').clientWidth <= 360")
    assert _too_wide(lab, 360) == []
    lab.page.evaluate("() => document.querySelector('.wb-panel').scrollIntoView()")
    lab.screenshot("panel-360px-dark")
    lab.set_theme("JupyterLab Light")
    lab.page.locator(".wb-chat").evaluate("(node) => node.scrollIntoView()")
    lab.screenshot("panel-360px-light-chat")


def _too_wide(lab, width):
    """Elements of the panel that stick out of it (scrolling boxes may hold wider things)."""
    return lab.page.evaluate(
        """(width) => {
            const left = document.querySelector('.wb-panel').getBoundingClientRect().left;
            const boxes = ['.wb-text pre', '.wb-block math', '.wb-table', '.wb-code-body pre', '.js-plotly-plot'];
            const scrolls = [...boxes, '.wb-unseen', 'option'].join(', ');
            return [...document.querySelectorAll('.wb-panel *')]
                .filter((node) => !node.closest(scrolls))
                .filter((node) => node.getBoundingClientRect().right > left + width + 1)
                .map((node) => `${node.tagName}.${node.className}`);
        }""",
        width,
    )


_SHOW_LATE = r"""
from widgets import QuantizationTradeoff

class Late(QuantizationTradeoff):
    _esm = "await new Promise((resolve) => setTimeout(resolve, 2200));\n" + QuantizationTradeoff._esm

Late("random:tiny", ["fp32", "int8"], backend="cpu")
"""


def test_a_trade_off_is_measured_by_a_click_also_where_its_module_comes_late(open_notebook):
    lab = open_notebook("tradeoff.ipynb", _SHOW_LATE)
    lab.run_all()
    part = lab.page.locator(".wb-tradeoff")
    part.get_by_text("Measure", exact=True).click()
    expect(part.get_by_role("status")).to_have_text("Measured", timeout=120_000)
    expect(part.locator("tbody tr")).to_have_count(2)
    expect(part.locator("svg")).to_be_visible()
    lab.screenshot("tradeoff-light")
    # anywidget has given it up after two seconds.
    problems = lab.take_problems()
    assert problems and all("Failed to initialize model" in problem for problem in problems)
