import time

import pytest
from fake_llm import Gate

from widgets import ChatBox
from workbench.conversation import Conversation, export_conversations
from workbench.errors import ConfigError, EngineStoppedError, InferenceError, RequestError
from workbench.session import LoadChoice

_LIMIT_S = 20


@pytest.fixture
def chat(front_end, ready_session):
    chat = ChatBox(ready_session)
    yield chat
    chat.close()


def _updates(front_end, chat):
    return [content for content in front_end.custom(chat) if content["type"] == "blocks"]


def _page(front_end, chat):
    """The blocks of the running reply as a browser has them after all updates so far."""
    blocks = []
    for update in _updates(front_end, chat):
        assert update["from"] <= len(blocks)
        blocks[update["from"] :] = update["blocks"]
    return "".join(blocks)


def test_a_message_streams_a_reply_with_its_numbers(front_end, chat):
    front_end.tell(chat, type="ask", text="Hi")
    assert {"type": "accepted", "to": "ask"} in front_end.custom(chat)
    assert chat.wait(_LIMIT_S)
    user, model = chat.messages
    assert (user["role"], user["text"], user["status"]) == ("user", "Hi", "done")
    assert (model["role"], model["text"], model["status"]) == ("assistant", "Hello there.", "done")
    assert model["note"] == "3 tokens, 40.0 tokens/s, first token after 0.25 s, context 10 of 2,048"
    assert _page(front_end, chat) == model["blocks"][0] == "<p>Hello there.</p>\n"
    assert chat.busy is False


def test_the_whole_conversation_and_the_sampling_go_to_the_engine(front_end, ready_session, factory):
    chat = ChatBox(ready_session, system="Be brief.", sampling={"temperature": 0.5, "seed": 1})
    for text in ("one", "two"):
        chat.ask(text)
        assert chat.wait(_LIMIT_S)
    request = factory.made[0].requests[-1]
    assert [message["content"] for message in request["messages"]] == ["Be brief.", "one", "Hello there.", "two"]
    assert (request["temperature"], request["seed"]) == (0.5, 1)
    assert "max_tokens" not in request


def test_stop_keeps_the_partial_text_and_the_chat_goes_on(front_end, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    front_end.tell(chat, type="ask", text="Hi")
    gate.let()
    front_end.wait_for(lambda: _updates(front_end, chat))
    front_end.tell(chat, type="stop")
    assert chat.wait(_LIMIT_S)
    assert (chat.messages[1]["text"], chat.messages[1]["status"]) == ("Hello", "stopped")
    assert chat.messages[1]["note"].startswith("Stopped, 1 token,")
    gate.open()
    chat.ask("Go on")
    assert chat.wait(_LIMIT_S)
    assert factory.made[0].requests[-1]["messages"][1] == {"role": "assistant", "content": "Hello"}


def test_text_goes_out_in_few_messages(front_end, chat, factory):
    factory.made[0]._words = [f"word{number} " for number in range(3000)]
    started_s = time.monotonic()
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    seconds = time.monotonic() - started_s
    assert len(_updates(front_end, chat)) <= 2 + 15 * seconds
    assert _page(front_end, chat) == "".join(chat.messages[1]["blocks"])


def test_only_the_blocks_that_changed_go_out(front_end, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    factory.made[0]._words = ["First.\n\n", "Sec", "ond."]
    chat.ask("Hi")
    for count in (1, 2, 3):
        gate.let()
        front_end.wait_for(lambda wanted=count: len(_updates(front_end, chat)) == wanted)
    assert chat.wait(_LIMIT_S)
    changes = [(update["from"], update["blocks"]) for update in _updates(front_end, chat)]
    assert changes == [(0, ["<p>First.</p>\n"]), (1, ["<p>Sec</p>\n"]), (1, ["<p>Second.</p>\n"])]


def test_a_page_that_is_loaded_meanwhile_gets_the_text_so_far(front_end, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    chat.ask("Hi")
    gate.let()
    front_end.wait_for(lambda: _updates(front_end, chat))
    front_end.tell(chat, type="hello")
    assert _updates(front_end, chat)[-1] == {
        "type": "blocks",
        "number": 1,
        "from": 0,
        "blocks": ["<p>Hello</p>\n"],
        "live": "",
    }
    gate.open()
    assert chat.wait(_LIMIT_S)


def test_a_click_returns_while_the_reply_goes_on(front_end, chat, factory):
    factory.made[0]._gate = Gate(is_open=False)
    front_end.tell(chat, type="ask", text="Hi")
    assert chat.busy
    front_end.tell(chat, type="stop")


def test_a_second_message_while_a_reply_runs_is_refused_and_told(front_end, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    chat.ask("one")
    with pytest.raises(RequestError, match="a reply is running"):
        chat.ask("two")
    with pytest.raises(RequestError, match="a reply is running"):
        chat.clear()
    front_end.tell(chat, type="ask", text="three")
    refusal = front_end.custom(chat)[-1]
    assert refusal["type"] == "refused"
    assert "a reply is running" in refusal["cause"]
    gate.open()
    assert chat.wait(_LIMIT_S)
    assert len(chat.messages) == 2


def test_an_empty_message_is_refused(chat):
    with pytest.raises(RequestError, match="empty"):
        chat.ask(" \n ")
    assert chat.messages == []


def test_without_a_model_it_says_so(front_end, session):
    chat = ChatBox(session)
    assert (chat.ready, chat.hint) == (False, "Load a model to chat.")
    with pytest.raises(EngineStoppedError):
        chat.ask("Hi")
    session.load(LoadChoice())
    session.wait(_LIMIT_S)
    assert (chat.ready, chat.hint) == (True, "")


def test_a_failed_reply_shows_cause_and_next_step_and_the_chat_goes_on(front_end, chat, factory):
    factory.made[0]._error = InferenceError("the step failed")
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["status"] == "failed"
    assert chat.messages[1]["text"] == "Hello there."
    assert chat.messages[1]["failure"]["cause"] == "the step failed"
    factory.made[0]._error = None
    chat.ask("Again")
    assert chat.wait(_LIMIT_S)
    assert chat.messages[3]["status"] == "done"


def test_unloading_in_the_middle_ends_the_reply_with_a_reason(front_end, ready_session, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    chat.ask("Hi")
    gate.let()
    front_end.wait_for(lambda: _updates(front_end, chat))
    ready_session.unload()
    ready_session.wait(_LIMIT_S)
    gate.open()
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["text"] == "Hello"
    assert "Load the model again" in chat.messages[1]["failure"]["next_step"]
    assert chat.ready is False


def _titles(chat):
    return [one["title"] for one in chat.conversations]


def _texts(chat):
    return [message["text"] for message in chat.messages]


def test_a_new_chat_leaves_the_others_in_a_list(front_end, chat):
    front_end.tell(chat, type="system", text="Be brief.")
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="new")
    assert (chat.messages, chat.system, _titles(chat)) == ([], "Be brief.", ["New chat", "Hi"])
    first = chat.conversations[1]["id"]
    front_end.tell(chat, type="system", text="Rhyme.")
    front_end.tell(chat, type="open", id=first)
    # One without a message is not kept.
    assert (_texts(chat), chat.system, _titles(chat)) == (["Hi", "Hello there."], "Be brief.", ["Hi"])
    assert chat.conversation_id == first
    front_end.tell(chat, type="open", id="none")
    assert "not here any more" in front_end.custom(chat)[-1]["cause"]


def test_a_conversation_is_forgotten_when_it_is_asked_for(front_end, chat):
    for text in ("one", "two"):
        front_end.tell(chat, type="new")
        chat.ask(text)
        assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="clear")
    assert (_texts(chat), _titles(chat)) == (["one", "Hello there."], ["one"])
    front_end.tell(chat, type="clear")
    assert (chat.messages, _titles(chat)) == ([], ["New chat"])


def test_another_is_opened_only_while_no_reply_runs(front_end, chat, factory):
    chat.ask("one")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="new")
    gate = factory.made[0]._gate = Gate(is_open=False)
    chat.ask("two")
    for content in ({"type": "open", "id": chat.conversations[1]["id"]}, {"type": "branch", "number": 0}):
        front_end.tell(chat, **content)
        assert "a reply is running" in front_end.custom(chat)[-1]["cause"]
    gate.open()
    assert chat.wait(_LIMIT_S)
    assert _texts(chat) == ["two", "Hello there."]


def test_a_file_of_several_conversations_is_taken_in_whole(front_end, chat):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    two = [Conversation(conversation_id=name) for name in ("a", "b")]
    for one in two:
        one.add("user", one.conversation_id)
    front_end.tell(chat, type="import", text=export_conversations(two))
    assert (_texts(chat), _titles(chat)) == (["a"], ["a", "b", "Hi"])
    # The same again takes the place of what is there.
    front_end.tell(chat, type="import", text=export_conversations(two))
    assert _titles(chat) == ["a", "b", "Hi"]


def test_close_stops_the_reply(front_end, ready_session, factory):
    chat = ChatBox(ready_session)
    factory.made[0]._gate = Gate(is_open=False)
    chat.ask("Hi")
    chat.close()
    assert chat.wait(_LIMIT_S)


def test_markup_from_the_model_is_only_ever_text(front_end, chat, factory):
    factory.made[0]._words = ["<img src=x onerror=alert(1)>"]
    chat.ask("<script>alert(2)</script>")
    assert chat.wait(_LIMIT_S)
    page = chat._repr_mimebundle_()["text/html"]
    assert "<img" not in page
    assert "<script" not in page
    assert repr(chat) == (
        "ChatBox (2 messages)\n  you    <script>alert(2)</script>\n  model  <img src=x onerror=alert(1)>"
    )


def test_another_version_is_beside_the_first_and_both_can_be_shown(front_end, chat, factory):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    factory.made[0]._words = ["Other."]
    front_end.tell(chat, type="regenerate", number=1)
    assert chat.wait(_LIMIT_S)
    assert [(m["text"], m["version"], m["versions"]) for m in chat.messages] == [("Hi", 1, 1), ("Other.", 2, 2)]
    front_end.tell(chat, type="show", number=chat.messages[1]["number"], step=-1)
    assert (chat.messages[1]["text"], chat.messages[1]["version"]) == ("Hello there.", 1)


def test_an_edited_question_gets_a_new_reply_and_the_old_branch_stays(front_end, chat, factory):
    for text in ("one", "two"):
        chat.ask(text)
        assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="edit", number=0, text="uno")
    assert chat.wait(_LIMIT_S)
    assert [message["text"] for message in chat.messages] == ["uno", "Hello there."]
    assert factory.made[0].requests[-1]["messages"] == [{"role": "user", "content": "uno"}]
    front_end.tell(chat, type="show", number=chat.messages[0]["number"], step=-1)
    assert [message["text"] for message in chat.messages] == ["one", "Hello there.", "two", "Hello there."]


def test_an_edited_reply_is_kept_as_it_is_written(front_end, chat):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="edit", number=1, text="Mine.")
    assert [message["text"] for message in chat.messages] == ["Hi", "Mine."]
    assert not chat.busy


def test_branching_goes_on_from_a_message_in_a_new_conversation(front_end, chat):
    for text in ("one", "two"):
        chat.ask(text)
        assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="branch", number=1)
    assert [message["text"] for message in chat.messages] == ["one", "Hello there."]
    assert [message["versions"] for message in chat.messages] == [1, 1]
    assert _titles(chat) == ["one (branch)", "one"]
    front_end.tell(chat, type="open", id=chat.conversations[1]["id"])
    assert _texts(chat) == ["one", "Hello there.", "two", "Hello there."]


def test_continue_goes_on_with_the_same_reply(front_end, chat, factory):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    assert chat.can_continue
    factory.made[0]._words = [" And more."]
    front_end.tell(chat, type="continue")
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["text"] == "Hello there. And more."
    assert factory.made[0].requests[-1]["prompt"] == [*b"user:Hi|assistant:Hello there."]


def test_a_picked_alternative_begins_a_new_version(front_end, chat, factory):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    factory.made[0]._words = [" you."]
    chat.continue_from(1, "Howdy")
    assert chat.wait(_LIMIT_S)
    assert (chat.messages[1]["text"], chat.messages[1]["versions"]) == ("Howdy you.", 2)
    assert factory.made[0].requests[-1]["prompt"] == [*b"user:Hi|assistant:Howdy"]


def test_looking_inside_keeps_the_tokens_of_new_replies(front_end, ready_session):
    inspected = []
    chat = ChatBox(ready_session, on_inspect=inspected.append)
    front_end.tell(chat, type="inside", on=True)
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["has_tokens"]
    front_end.tell(chat, type="inspect", number=1)
    assert [token.text for token in inspected[0].tokens] == ["A", "B", "C"]
    chat.close()


def test_presets_system_prompt_and_settings_change_the_next_request(front_end, chat, factory):
    front_end.tell(chat, type="preset", name="Short")
    assert (chat.preset, chat.system) == ("Short", "Answer in one or two sentences.")
    front_end.tell(chat, type="sampling", name="top_k", value=5)
    front_end.tell(chat, type="system", text="Be kind.")
    assert (chat.preset, chat.changed_preset) == ("", "Short")
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    request = factory.made[0].requests[-1]
    assert (request["top_k"], request["max_tokens"]) == (5, 96)
    assert request["messages"][0] == {"role": "system", "content": "Be kind."}


def test_a_preset_is_called_changed_until_its_values_are_back(front_end, chat):
    chat.choose_preset("Balanced")
    front_end.tell(chat, type="sampling", name="temperature", value=0.9)
    assert (chat.preset, chat.changed_preset) == ("", "Balanced")
    # It has no system prompt: one's own goes with it.
    front_end.tell(chat, type="sampling", name="temperature", value=0.7)
    front_end.tell(chat, type="system", text="Be kind.")
    assert (chat.preset, chat.changed_preset) == ("Balanced", "")


def test_a_setting_that_cannot_be_is_refused_and_taken_back(front_end, chat):
    front_end.tell(chat, type="sampling", name="top_p", value=7)
    refusal = front_end.custom(chat)[-1]
    assert (refusal["type"], refusal["to"]) == ("refused", "sampling")
    assert "top_p=7: must be a number above 0 and at most 1" in refusal["cause"]
    assert next(setting["value"] for setting in chat.settings if setting["name"] == "top_p") == 1.0


def test_a_preset_is_saved_used_again_and_removed(front_end, chat):
    chat.set_sampling("temperature", 0.4)
    front_end.tell(chat, type="save_preset", name="Mine")
    assert "Mine" in chat.presets
    chat.choose_preset("Precise")
    chat.choose_preset("Mine")
    assert chat.sampling["temperature"] == 0.4
    front_end.tell(chat, type="remove_preset", name="Mine")
    assert "Mine" not in chat.presets
    front_end.tell(chat, type="remove_preset", name="Precise")
    assert "built-in" in front_end.custom(chat)[-1]["cause"]


def test_the_context_meter_counts_system_history_and_draft(front_end, ready_session):
    chat = ChatBox(ready_session, system="Be brief.")
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="draft", text="four")
    front_end.wait_for(lambda: chat.context.get("draft"))
    context = chat.context
    assert context["max"] == 2048
    assert (context["system"] > 0, context["history"] > 0, context["draft"] > 4) == (True, True, True)
    assert context["line"].startswith(f"{context['system'] + context['history'] + context['draft']:,} of 2,048 tokens")
    chat.close()


def test_export_and_import_bring_back_every_version(front_end, chat, ready_session, factory):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    chat.regenerate()
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="export")
    text = next(content["text"] for content in front_end.custom(chat) if content["type"] == "export")
    other = ChatBox(ready_session)
    front_end.tell(other, type="import", text=text)
    assert [(m["text"], m["versions"]) for m in other.messages] == [("Hi", 1), ("Hello there.", 2)]
    front_end.tell(chat, type="new")
    chat.ask("Ho")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="export_all")
    saved = front_end.custom(chat)[-2]
    assert saved["name"] == "conversations.json"
    front_end.tell(other, type="import", text=saved["text"])
    assert [one["title"] for one in other.conversations] == ["Ho", "Hi"]
    front_end.tell(other, type="import", text="{nonsense")
    assert "no JSON" in front_end.custom(other)[-1]["cause"]
    other.close()


def test_reasoning_is_folded_away(front_end, chat, factory):
    factory.made[0]._words = ["<think>hm</think>", "Yes."]
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["blocks"] == [
        '<details class="wb-reasoning"><summary>Reasoning</summary><p>hm</p>\n</details>',
        "<p>Yes.</p>\n",
    ]


def test_what_the_browser_makes_up_is_refused_and_nothing_breaks(front_end, chat):
    for content in ({"type": "edit"}, {"type": "edit", "number": 99, "text": "x"}, {"type": "show", "number": "a"}):
        front_end.tell(chat, **content)
        assert front_end.custom(chat)[-1]["type"] == "refused"
    front_end.tell(chat, type="explode")
    assert chat.messages == []


def test_an_engine_can_be_given_in_place_of_a_session(front_end, ready_session):
    chat = ChatBox(ready_session.llm)
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["text"] == "Hello there."
    chat.close()


@pytest.mark.parametrize(
    "text", ["[]", '{"messages": []}', export_conversations([]), export_conversations([Conversation("Be kind.")])]
)
def test_a_file_without_a_message_leaves_the_chat_as_it_is(front_end, chat, text):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="import", text=text)
    assert "no message in it" in front_end.custom(chat)[-1]["cause"]
    assert [message["text"] for message in chat.messages] == ["Hi", "Hello there."]


@pytest.mark.parametrize(("source", "words"), [(None, "nothing was given"), ("default", "'default' is neither")])
def test_without_a_model_to_chat_with_it_says_what_to_give(source, words):
    with pytest.raises(ConfigError, match=rf"{words}.*LlamaGPU\('default'\)"):
        ChatBox(source)
