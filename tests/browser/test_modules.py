"""What widgets do in the browser by themselves, between two words of the kernel."""

from __future__ import annotations

import pytest
from browser.module_page import ModulePage
from playwright.sync_api import expect


@pytest.fixture
def page(machinery):
    page = machinery.browser.new_page()
    yield page
    page.close()


def _message(number, role, text, **more):
    plain = {"status": "done", "note": "", "failure": None, "version": 1, "versions": 1, "has_tokens": False}
    return {"number": number, "role": role, "text": text, "blocks": [f"<p>{text}</p>"], **plain, **more}


_CHAT = {
    "messages": [_message(0, "user", "Hi"), _message(1, "assistant", "Hello.")],
    "busy": False,
    "ready": True,
    "hint": "",
    "context": {},
    "can_continue": True,
    "looks_inside": False,
    "conversations": [{"id": "a", "title": "Hi"}],
    "conversation_id": "a",
    "system": "",
    "preset": "",
    "changed_preset": "",
    "presets": [],
    "settings": [{"name": "top_k", "label": "Top k", "step": "1", "least": 0, "most": None, "value": 7}],
}


def test_an_edit_stays_with_the_reason_until_it_is_taken(page):
    chat = ModulePage(page, "chat_box", **_CHAT)
    page.get_by_role("button", name="Change this message").first.click()
    box = page.get_by_label("New text of the message")
    box.fill("Hello there")
    box.press("Control+Enter")
    assert chat.sent("edit") == [{"type": "edit", "number": 0, "text": "Hello there"}]
    chat.say(type="refused", to="edit", number=0, cause="a reply is running.", next_step="Wait.")
    expect(page.get_by_role("alert").filter(has_text="a reply is running. Wait.")).to_be_visible()
    assert box.input_value() == "Hello there"
    box.press("Control+Enter")
    assert len(chat.sent("edit")) == 2
    # The new version is there before the word that it was taken.
    chat.change(messages=[_message(2, "user", "Hello there", version=2, versions=2)])
    chat.say(type="accepted", to="edit", number=0)
    expect(box).to_have_count(0)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_another_conversation_is_chosen_from_the_list_and_its_messages_are_its_own(page):
    chat = ModulePage(page, "chat_box", **_CHAT)
    expect(page.get_by_label("Conversation", exact=True).and_(page.locator("select"))).to_be_hidden()
    chat.change(conversations=[{"id": "a", "title": "Hi"}, {"id": "b", "title": "Ho"}])
    page.locator("select").filter(has_text="Ho").select_option("b")
    assert chat.sent("open") == [{"type": "open", "id": "b"}]
    page.get_by_role("button", name="Export all").click()
    assert chat.sent("export_all") == [{"type": "export_all"}]
    chat.change(presets=["Short"], changed_preset="Short")
    expect(page.get_by_label("Preset", exact=True)).to_have_value("")
    expect(page.locator("option[value='']")).to_have_text("Short, changed")
    # Numbers begin anew in each: the same one may be of a reply here and of a question there.
    chat.change(messages=[_message(0, "assistant", "Ho.")], conversation_id="b")
    expect(page.locator("article")).to_have_count(1)
    expect(page.get_by_role("article", name="Model")).to_contain_text("Ho.")


def test_ctrl_enter_asks_for_another_version_and_leaves_the_draft(page):
    chat = ModulePage(page, "chat_box", **_CHAT)
    box = page.get_by_label("Message", exact=True)
    box.fill("A draft")
    box.press("Control+Enter")
    assert (len(chat.sent("regenerate")), chat.sent("ask"), box.input_value()) == (1, [], "A draft")


def test_the_keyboard_stays_with_the_tokens_and_the_pointer_shows_them_after_scoring(page):
    def token(text, *alternatives):
        return {"text": text, "p": 0.5, "h": 0.7, "rank": 1, "alts": [[one, 0.5] for one in alternatives]}

    tokens = [token("a"), token(" b", "  ", " c"), token(" d", " e")]
    state = {"coloring": "probability", "summary": "", "busy": False, "can_score": True, "can_pick": True}
    heat = ModulePage(page, "token_heatmap", tokens=tokens, ready=True, text="", failure=None, **state)
    page.get_by_role("button", name="Score").click()
    page.locator(".wb-token").nth(1).hover()
    alternatives = page.get_by_role("group", name="What could have stood here")
    # Blanks alone can be seen.
    expect(alternatives.get_by_role("button").first).to_contain_text("␣␣")
    page.get_by_role("listbox").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    heat.change(busy=False)
    assert heat.focused() == " c50 %"
    page.keyboard.press("Enter")
    assert heat.sent("pick") == [{"type": "pick", "token": 1, "alternative": 1}]
    expect(page.get_by_role("listbox")).to_be_focused()
    heat.change(tokens=[token("a"), token(" c"), token(" f")])
    expect(page.get_by_role("listbox")).to_be_focused()
    expect(page.locator(".wb-token[aria-selected=true]")).to_have_text(" c")
    heat.change(ready=False, can_pick=False)
    expect(page.get_by_text("Load a model to score a text")).to_be_visible()


def test_a_refused_number_is_taken_back_beside_the_reason(page):
    state = {
        "summary": "",
        "alarm": "",
        "is_paused": False,
        "window_s": 60,
        "windows_s": [60, 120],
        "has_threshold": True,
    }
    controls = ModulePage(page, "monitor_controls", threshold_percent=90, **state)
    line = page.get_by_label("Line at % of memory")
    line.fill("150")
    line.press("Enter")
    assert controls.sent("threshold") == [{"type": "threshold", "percent": 150}]
    controls.say(type="refused", cause="must be a number from 1 to 100")
    assert line.input_value() == "90"
    expect(line).to_have_accessible_description("must be a number from 1 to 100")

    plan = {"verdict": "fits", "margin_bytes": 1, "title": "", "devices": [], "speeds": [], "advice": [], "notes": []}
    plan |= {"no_advice": "", "origin": "", "host": {"needed_bytes": 1, "available_bytes": 2, "verdict": "fits"}}
    card = ModulePage(page, "plan_card", state="ready", view=plan, batch=1, measured=[], failure=None)
    batch = page.get_by_label("Requests at once")
    batch.fill("5000")
    batch.press("Enter")
    assert card.sent("batch") == [{"type": "batch", "batch": 5000}]
    card.say(type="refused", cause="must be an integer from 1 to 1024")
    assert batch.input_value() == "1"
    expect(batch).to_have_accessible_description("must be an integer from 1 to 1024")


def test_the_endpoint_without_a_proxy_has_its_note_beside_its_name(page):
    state = {"state": "running", "ready": True, "headline": "Serving", "local_url": "http://x/v1", "public_path": ""}
    more = {"masked_key": "sk-…", "needs_key": True, "snippets": {}, "probe": "", "failure": None}
    ModulePage(page, "endpoint_card", via="Jupyter", note="Run `pip install it` first.", **state, **more)
    assert page.locator("dt").all_text_contents() == ["On this machine", "From outside", "Key"]
    expect(page.locator("dd").nth(1)).to_contain_text("Run pip install it first.")
    expect(page.locator("dd code").last).to_have_text("pip install it")
