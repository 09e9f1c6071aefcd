"""The whole app in Chromium over the embedded model: what a person does on each tab."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from dashboards_page import WAIT_MS, AppPage
from live_endpoint import wait_until_idle
from playwright.sync_api import expect
from plugin_packages import write_wheel
from step_gate import StepGate

from workbench.models.quantized_folder import quantize_to_folder
from workbench.plugins import write_index
from workbench.server.endpoints import PROCESS_ENDPOINTS
from workbench.server.keys import default_key_file

pytestmark = pytest.mark.browser

LONG = "Tell me a very long story about a lighthouse keeper and the sea."


@pytest.fixture(scope="module")
def page(app, open_page) -> AppPage:
    return open_page(app.url).wait_until_ready()


@pytest.fixture(autouse=True)
def no_problems(page, is_rerun):
    """No test may leave a console error, or have asked another host for anything."""
    if is_rerun:
        page.start_over()
    yield
    assert page.take_problems() == []


def test_a_reply_streams_with_its_figures_and_the_box_is_free_again(page):
    page.new_chat(most_tokens=24)
    page.box.fill("What is the capital of France?")
    page.box.press("Shift+Enter")
    assert page.box.input_value().endswith("\n")
    expect(page.part("wb-meter")).to_contain_text("draft")
    page.box.press("Enter")
    expect(page.box).to_have_value("")
    page.wait_for_replies(1)
    expect(page.chat).to_contain_text("Paris")
    # Nothing that went wrong by itself.
    expect(page.page.locator(".toast-body")).to_have_count(0)
    for words in ("tokens/s", "first token after", "context", "of 2,048"):
        expect(page.notes.last).to_contain_text(words)
    expect(page.part("wb-meter")).to_contain_text("history")


def test_regenerating_makes_versions_and_undo_gives_the_question_back(page):
    page.new_chat()
    page.ask("Name a colour.")
    page.box.press("Control+Enter")
    expect(page.notes.last).to_contain_text("version 2 of 2", timeout=WAIT_MS)
    page.wait_for_replies(1)
    page.press("wb-older")
    expect(page.notes.last).to_contain_text("version 1 of 2")
    page.press("wb-newer")
    expect(page.notes.last).to_contain_text("version 2 of 2")
    page.page.get_by_role("button", name="Retry").click()
    expect(page.notes.last).to_contain_text("version 3 of 3", timeout=WAIT_MS)
    page.wait_for_replies(1)
    page.press("wb-undo")
    expect(page.box).to_have_value("Name a colour.")
    expect(page.notes).to_have_count(0)
    page.box.fill("")


def test_escape_stops_and_frees_the_engine_and_the_reply_can_go_on(page, session):
    page.new_chat(most_tokens=1800)
    page.send(LONG)
    page.wait_for_text()
    page.page.keyboard.press("Escape")
    expect(page.notes.last).to_contain_text("Stopped", timeout=WAIT_MS)
    wait_until_idle(session.llm)
    before = page.page.locator("#wb-chatbot .bot .prose").first.inner_text()
    page.set("Most tokens of a reply", "8")
    page.press("wb-continue")
    expect(page.notes.last).to_contain_text("Cut at the length limit", timeout=WAIT_MS)
    after = page.page.locator("#wb-chatbot .bot .prose").first.inner_text()
    assert after.startswith(before[:-5]) and len(after) > len(before)


def test_questions_and_replies_can_be_edited_and_branched(page, app):
    page.new_chat()
    page.ask("Name a colour.")
    page.page.get_by_role("button", name="Edit", exact=True).first.click()
    page.page.locator("#wb-chatbot textarea").fill("Name an animal.")
    page.page.get_by_role("button", name="Submit").click()
    # The page shows the edit before the server has it.
    page.wait_until(lambda: _questions(app) == ["Name an animal."])
    page.wait_for_replies(1)
    page.press("wb-edit")
    page.page.get_by_label("Text of the reply").fill("A fine elephant.")
    page.page.get_by_role("button", name="Save as a new version").click()
    expect(page.chat).to_contain_text("A fine elephant.")
    page.press("wb-branch")
    page.ask("And another?", replies=1)
    page.press("wb-branch")
    name = page.part("wb-name").locator("input, textarea")
    expect(name).to_have_value("Name an animal. (branch) (branch)")
    page.part("wb-conversations").get_by_role("radio", name="Name an animal.", exact=True).click()
    expect(name).to_have_value("Name an animal.")
    page.ask("Which one?", replies=2)
    expect(page.chat).to_contain_text("A fine elephant.")
    # No reply ran there that could be followed: nothing may be emptied by that.
    expect(page.part("wb-stop")).to_have_text("Stop")


def test_what_looks_like_markup_is_shown_as_it_was_written(page, app, tmp_path):
    texts = ("Centre a <div>, <tool_call>, List<int>.", "```cpp\nvector<int> one;\n```", "1 < 2 and **bold**")
    file = tmp_path / "markup.json"
    roles = ("user", "assistant")
    file.write_text(json.dumps([{"role": role, "content": text} for text in texts for role in roles]))
    page.new_chat()
    page.upload("wb-import", file)
    for words in ("Centre a <\u2060div>, <\u2060tool_call>, List<\u2060int>.", "vector<int> one;", "1 < 2 and bold"):
        for side in (".user", ".bot"):
            expect(page.chat.locator(f"{side} .prose").filter(has_text=words)).to_have_count(1)
    page.page.get_by_role("button", name="Edit", exact=True).last.click()
    page.page.locator("#wb-chatbot textarea").fill("<\u2060b> and 1 < 2")
    page.page.get_by_role("button", name="Submit").click()
    page.wait_until(lambda: _questions(app)[-1:] == ["<b> and 1 < 2"])


def test_conversations_are_exported_imported_and_kept_over_a_reload(page, tmp_path):
    page.new_chat()
    page.ask("Name a fruit.")
    name = page.part("wb-name").locator("input, textarea")
    name.fill("Fruit talk")
    name.press("Enter")
    expect(page.part("wb-conversations")).to_contain_text("Fruit talk")
    with page.saved_file() as texts:
        page.page.get_by_role("button", name="Export", exact=True).first.click()
    exported = json.loads(texts[0])
    assert exported["conversations"][0]["title"] == "Fruit talk"
    page.press("wb-delete")
    expect(page.part("wb-conversations")).not_to_contain_text("Fruit talk")
    file = tmp_path / "conversation.json"
    file.write_text(texts[0])
    without = page.kept_by_the_browser()
    page.upload("wb-import", file)
    expect(page.chat).to_contain_text("Name a fruit.")
    page.wait_until(lambda: page.kept_by_the_browser() != without)
    page.start_over()
    expect(page.part("wb-conversations")).to_contain_text("Fruit talk")
    expect(page.chat).to_contain_text("Name a fruit.")


def test_an_answer_follows_a_json_schema(page):
    page.new_chat(most_tokens=60)
    page.unfold("Answer format and tools")
    page.choose("wb-answer-format", "JSON schema")
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    editor = page.part("wb-schema").locator(".cm-content")
    editor.click()
    page.page.keyboard.insert_text(json.dumps({**schema, "additionalProperties": False}))
    page.ask("Name a colour, as JSON.")
    text = page.page.locator("#wb-chatbot .bot .prose").first.inner_text()
    assert json.loads(text)["colour"] in ("red", "blue")
    page.choose("wb-answer-format", "Text")


def test_tools_are_shown_as_steps_and_reasoning_is_folded(page):
    page.new_chat(most_tokens=24)
    page.unfold("Answer format and tools")
    tool, must = page.page.get_by_label("clock"), page.page.get_by_label("It must call one")
    must.check()
    page.send("How late is it?")
    expect(page.page.get_by_text("none is chosen")).to_be_visible()
    tool.check()
    page.ask("How late is it?")
    expect(page.chat).to_contain_text("Called clock")
    tool.uncheck()
    must.uncheck()
    page.new_chat()
    page.set("Begin the reply with", "<think>A sum.</think>")
    page.ask("What is 2+2?")
    expect(page.chat).to_contain_text("Reasoning")
    expect(page.page.get_by_text("A sum.")).to_have_count(0)
    page.page.get_by_role("button").filter(has_text="Reasoning").click()
    expect(page.page.get_by_text("A sum.")).to_be_visible()
    page.set("Begin the reply with", "")


def test_presets_are_saved_used_exported_and_imported(page, app, tmp_path):
    page.new_chat()
    page.set("System prompt", "You speak like a pirate.")
    page.set("Most tokens of a reply", "9")
    page.unfold("Save, import and export presets")
    page.set("Name of the preset", "Pirate")
    page.page.get_by_role("button", name="Save", exact=True).click()
    expect(page.part("wb-preset").locator("input")).to_have_value("Pirate")
    assert app.parts.shelf.get("Pirate").params.max_tokens == 9
    page.choose("wb-preset", "Precise")
    expect(page.page.get_by_label("System prompt")).to_have_value("")
    page.choose("wb-preset", "Pirate")
    expect(page.page.get_by_label("System prompt")).to_have_value("You speak like a pirate.")
    page.set("Most tokens of a reply", "11")
    expect(page.part("wb-preset")).to_contain_text("changed since: max tokens")
    page.set("Most tokens of a reply", "9")
    expect(page.part("wb-preset")).to_contain_text("sets everything below")
    with page.saved_file() as texts:
        page.part("wb-preset-files").get_by_role("button", name="Export", exact=True).click()
    file = tmp_path / "presets.json"
    file.write_text(texts[0].replace("Pirate", "Sailor"))
    page.upload("wb-preset-import", file)
    page.choose("wb-preset", "Sailor")
    expect(page.part("wb-preset").locator("input")).to_have_value("Sailor")
    # What a preset sets may come after what the next test types.
    page.choose("wb-preset", "Precise")
    expect(page.page.get_by_label("System prompt")).to_have_value("")


def test_a_wrong_setting_is_said_and_the_message_is_kept(page):
    page.new_chat()
    page.unfold("More")
    page.set("Seed", "abc")
    page.send("Hello")
    expect(page.page.get_by_text("must be an integer")).to_be_visible()
    expect(page.box).to_have_value("Hello")
    page.set("Seed", "")
    page.box.fill("")


def test_two_models_of_which_one_is_quantised_are_compared(page, session, quick_model_folder):
    page.tab("Compare")
    page.choose("wb-compare-preset-1", "Short")
    page.choose("wb-compare-preset-2", "Short")
    page.choose("wb-compare-model-2", str(quick_model_folder))
    page.choose("wb-compare-precision-2", "int8")
    box = page.part("wb-compare-prompt").locator("textarea")
    box.fill("Say hello.")
    box.press("Enter")
    second = page.part("wb-answer-figures-2")
    expect(second).to_contain_text("Against answer 1", timeout=WAIT_MS)
    for words in ("tokens/s", "int8 on cpu", "weights"):
        expect(second).to_contain_text(words)
    expect(page.part("wb-answer-figures-1")).to_contain_text(f"{session.llm.dtype} on cpu")
    page.press("wb-compare-unload")
    expect(page.part("wb-compare-state")).to_contain_text("Unloaded")


def test_the_heat_map_shows_alternatives_and_the_chat_goes_on_from_one(page):
    page.new_chat()
    page.ask("What is the capital of France?")
    page.press("wb-look-inside")
    expect(page.part("wb-heat-summary")).to_contain_text("perplexity", timeout=WAIT_MS)
    page.part("wb-heat").locator(".token").nth(1).click()
    expect(page.part("wb-token")).to_contain_text("probability")
    page.part("wb-alternatives").locator("label").nth(1).click()
    page.press("wb-go-on")
    expect(page.part("wb-chatbot")).to_be_visible(timeout=WAIT_MS)
    page.wait_for_replies(1)
    expect(page.notes.last).to_contain_text("version 2 of 2")


def test_a_given_text_is_scored_and_the_next_token_shown(page):
    page.tab("Inside")
    page.part("wb-score-text").locator("textarea").fill("The capital of France is Paris.")
    page.press("wb-score")
    expect(page.part("wb-heat-summary")).to_contain_text("7 tokens", timeout=WAIT_MS)
    page.part("wb-score-text").locator("textarea").fill("The capital of France is")
    page.press("wb-next")
    expect(page.part("wb-next-words")).to_contain_text("likeliest is", timeout=WAIT_MS)
    expect(page.part("wb-next-plot").locator(".js-plotly-plot")).to_be_visible(timeout=WAIT_MS)


def test_the_monitor_shows_a_request_and_cancels_it(page, session):
    page.new_chat(most_tokens=1800)
    page.send(LONG)
    page.wait_for_text()
    page.tab("Monitor")
    expect(page.part("wb-tiles")).to_contain_text("tokens/s")
    expect(page.part("wb-live-plot").locator(".js-plotly-plot")).to_be_visible(timeout=WAIT_MS)
    expect(page.part("wb-requests")).to_contain_text("req-", timeout=WAIT_MS)
    page.press("wb-cancel-all")
    wait_until_idle(session.llm)
    page.tab("Chat")
    expect(page.notes.last).to_contain_text("Stopped", timeout=WAIT_MS)


def test_the_endpoint_is_started_used_and_stopped_and_keys_are_made_and_revoked(page):
    page.tab("Endpoint")
    page.press("wb-endpoint-start")
    expect(page.part("wb-endpoint-state")).to_contain_text("answers at", timeout=WAIT_MS)
    endpoint = PROCESS_ENDPOINTS.get("default")
    expect(page.part("wb-snippet-curl")).to_contain_text(endpoint.url)
    assert httpx.get(endpoint.url.replace("/v1", "/health"), trust_env=False).status_code == 200
    page.set("Name of a new key", "laptop")
    page.press("wb-key-create")
    expect(page.part("wb-new-key").locator("input, textarea")).to_have_value(re.compile("^wb-"), timeout=WAIT_MS)
    expect(page.part("wb-keys")).to_contain_text("laptop")
    made = page.part("wb-new-key").locator("input, textarea").input_value()
    models = f"{endpoint.url}/models"
    assert httpx.get(models, headers={"Authorization": f"Bearer {made}"}, trust_env=False).status_code == 200
    (stored,) = [key for key in default_key_file().list() if key.name == "laptop"]
    page.choose("wb-key-id", f"laptop ({stored.key_id})")
    page.press("wb-key-revoke")
    expect(page.part("wb-keys")).not_to_contain_text("laptop")
    assert httpx.get(models, headers={"Authorization": f"Bearer {made}"}, trust_env=False).status_code == 401
    page.press("wb-endpoint-stop")
    expect(page.part("wb-endpoint-state")).to_contain_text("is stopped", timeout=WAIT_MS)
    assert not endpoint.is_running


def test_plugins_are_installed_switched_looked_at_and_removed(page, tmp_path):
    write_wheel(tmp_path, "shy")
    write_index(tmp_path)
    page.tab("Plugins")
    expect(page.part("wb-plugins")).to_contain_text("request-logger")
    page.part("wb-index").locator("textarea, input").fill(str(tmp_path))
    page.press("wb-plugin-look")
    expect(page.part("wb-offered")).to_contain_text("shy")
    page.page.get_by_label("Also take what nobody has signed").check()
    for button, said in (("install", "is installed (not signed)"), ("enable", "is on"), ("disable", "is off")):
        if button == "enable":
            page.choose("wb-plugin", "shy")
        page.press(f"wb-plugin-{button}")
        expect(page.part("wb-plugins-said")).to_contain_text(f"shy{' 1.0' * (button != 'disable')} {said}")
    page.press("wb-plugin-info")
    expect(page.part("wb-plugin-facts")).to_contain_text("signed_by")
    page.press("wb-plugin-update")
    expect(page.part("wb-plugins-said")).to_contain_text("is the newest that fits")
    page.press("wb-plugin-remove")
    expect(page.part("wb-plugins-said")).to_contain_text("shy is removed")
    expect(page.part("wb-plugins")).not_to_contain_text("shy")


def test_a_tab_of_a_plugin_works_and_one_that_fails_shows_its_error(page):
    page.tab("shouter")
    shown = page.part("shouter-shown").locator("textarea, input")
    expect(shown).to_have_value("from ready")
    page.press("shouter-go")
    expect(shown).to_have_value("FROM READY")
    page.tab("broken")
    expect(page.part("wb-failed-broken")).to_contain_text("RuntimeError: no tab today")
    page.tab("Chat")
    expect(page.box).to_be_visible()


def test_the_cluster_tab_says_what_one_process_does(page):
    page.tab("Cluster")
    expect(page.part("wb-cluster")).to_contain_text("nothing to balance", timeout=WAIT_MS)
    expect(page.part("wb-cluster")).to_contain_text("The engine runs")
    expect(page.part("wb-cluster")).to_contain_text("cpu:0")


def test_two_browsers_share_a_batch_and_closing_one_stops_only_its_own(page, app, open_page, session):
    other = open_page(app.url).wait_until_ready()
    for one in (page, other):
        one.new_chat(most_tokens=1800)
        one.send(LONG)
    page.wait_for_text()
    other.wait_for_text()
    assert session.stats().num_running == 2
    assert len(session.llm.requests()) == 2
    other.close()
    page.wait_until(lambda: session.stats().num_running < 2)
    assert session.stats().num_running == 1
    expect(page.part("wb-stop")).to_be_enabled()
    page.press("wb-stop")
    expect(page.notes.last).to_contain_text("Stopped")


def test_two_tabs_of_one_browser_keep_each_others_conversations(page, app):
    page.new_chat()
    page.ask("From tab one.")
    tab = AppPage(page.page.context.new_page(), app.url).wait_until_ready()
    expect(tab.part("wb-conversations")).to_contain_text("From tab one.")
    tab.new_chat()
    tab.ask("From tab two.")
    page.new_chat()
    page.ask("From tab one again.")
    tab.page.reload()
    tab.wait_until_ready()
    for text in ("From tab one.", "From tab two.", "From tab one again."):
        expect(tab.part("wb-conversations")).to_contain_text(text)
    tab.page.close()


def test_the_trade_off_of_precisions_is_measured_and_drawn(page, tiny_model_folder):
    page.tab("Models")
    page.choose("wb-model", str(tiny_model_folder))
    page.unfold("Trade-off of precisions")
    page.part("wb-tradeoff").get_by_label("bf16", exact=True).uncheck()
    page.press("wb-measure")
    expect(page.part("wb-tradeoff-table")).to_contain_text("int8", timeout=2 * WAIT_MS)
    expect(page.part("wb-tradeoff-plot").locator("svg")).to_be_visible(timeout=2 * WAIT_MS)


def test_a_model_is_quantised_into_a_folder_and_loaded_from_there(page, session, tiny_model_folder, tmp_path):
    page.tab("Models")
    page.unfold("Quantise and keep")
    page.choose("wb-model", str(tiny_model_folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dashboards.tabs.quantize.quantize_to_folder", _quantised_until_cancelled)
        page.press("wb-quantize-start")
        expect(page.part("wb-quantize-said")).to_contain_text("Quantising to int8")
        page.press("wb-quantize-stop")
        expect(page.part("wb-quantize-said")).to_contain_text("cancelled; nothing was kept", timeout=WAIT_MS)
    page.choose("wb-quantize-kind", "int8")
    page.part("wb-quantize-out").locator("textarea, input").fill(str(tmp_path / "small"))
    page.press("wb-quantize-start")
    expect(page.part("wb-quantize-said")).to_contain_text("It lies at", timeout=WAIT_MS)
    page.choose("wb-model", str(tmp_path / "small"))
    page.choose("wb-precision", "int8 (8-bit weights)")
    expect(page.part("wb-plan")).to_contain_text("fits", timeout=WAIT_MS)
    page.press("wb-load")
    expect(page.part("wb-progress")).to_contain_text("small is ready: int8 on cpu", timeout=WAIT_MS)
    assert session.llm.chat("Hi", max_tokens=2)
    page.press("wb-quantize-start")
    expect(page.page.get_by_text("is not an empty folder")).to_be_visible()
    page.choose("wb-precision", "Automatic (bf16)")


def test_unload_and_load_with_a_plan(page, quick_model_folder):
    page.tab("Models")
    page.choose("wb-model", str(quick_model_folder))
    expect(page.part("wb-plan")).to_contain_text("fits", timeout=WAIT_MS)
    page.press("wb-unload")
    expect(page.part("wb-progress")).to_contain_text("unloading freed", timeout=WAIT_MS)
    expect(page.part("wb-header")).to_contain_text("No model is loaded")
    page.press("wb-load")
    expect(page.part("wb-progress")).to_contain_text("is ready", timeout=WAIT_MS)
    page.wait_until_ready()


def test_a_dead_engine_shows_a_banner_and_is_restarted(page, session, embedded_model_folder, monkeypatch):
    gate = StepGate(session.llm, monkeypatch)
    page.new_chat()
    page.send(LONG)
    gate.allow(4)
    expect(page.part("wb-stop")).to_be_enabled()

    def die(request_id: str) -> None:
        raise RuntimeError("killed by a test")

    monkeypatch.setattr(gate.engine, "abort", die)
    session.llm.abort("nobody")
    gate.open()
    expect(page.part("wb-banner")).to_contain_text("The engine has stopped", timeout=WAIT_MS)
    expect(page.chat).to_contain_text("Load the model again")
    page.press("wb-restart")
    page.wait_until_ready()
    expect(page.part("wb-banner")).to_be_hidden()
    page.new_chat()
    page.ask("Hello!")
    # The other tests want a model that has something to say.
    page.tab("Models")
    page.choose("wb-model", str(embedded_model_folder))
    page.press("wb-load")
    expect(page.part("wb-progress")).to_contain_text(f"{embedded_model_folder.name} is ready", timeout=WAIT_MS)
    page.new_chat()
    page.ask("Hello!")


def test_every_tab_fits_a_phone_and_can_be_read_in_the_dark(app, open_page, tmp_path):
    phone = open_page(app.url, viewport={"width": 360, "height": 740}, color_scheme="dark").wait_until_ready()
    for name in ("Chat", "Compare", "Inside", "Monitor", "Models", "Endpoint", "Plugins", "Cluster", "shouter"):
        phone.tab(name)
        wide = phone.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= 360, f"{name} is {wide} px wide"
        assert phone.page.evaluate(_NAMELESS) == []
    phone.new_chat()
    phone.ask("Hello!")
    assert phone.take_problems() == []
    phone.close()


def _quantised_until_cancelled(*args, progress, **options):
    """The real one, which gets no further than its first progress: it has time until it is told to stop."""

    def tell_again(first):
        while True:
            progress(first)
            time.sleep(0.02)

    return quantize_to_folder(*args, progress=tell_again, **options)


def _questions(app) -> list[str]:
    """The questions of the conversation on the page that was opened last, once its reply has ended."""
    desk = list(app.parts.desks)[-1]
    return [m.text for m in desk.current.messages if m.role == "user"] if desk.reply is None else []


# Controls that are shown and have no name for a screen reader.
_NAMELESS = """() => [...document.querySelectorAll('button, input, textarea, select')]
    .filter((node) => node.offsetParent !== null && node.type !== 'file')
    .filter((node) => !(node.ariaLabel || node.title || node.innerText.trim() || node.labels?.length
        || node.placeholder || node.closest('label, .thought-group, [role=table], .table-wrap, .cm-editor')))
    .map((node) => node.outerHTML.slice(0, 120))"""
