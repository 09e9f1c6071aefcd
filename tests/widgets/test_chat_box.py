import time

import pytest
from fake_llm import Gate

from widgets import ChatBox
from workbench.errors import EngineStoppedError, InferenceError, RequestError
from workbench.session import LoadChoice

_LIMIT_S = 20


@pytest.fixture
def chat(front_end, ready_session):
    chat = ChatBox(ready_session)
    yield chat
    chat.close()


def _texts(front_end, chat):
    return [content["text"] for content in front_end.custom(chat) if content["type"] == "append"]


def test_a_message_streams_a_reply_with_its_numbers(front_end, chat):
    front_end.tell(chat, type="ask", text="Hi")
    assert {"type": "accepted"} in front_end.custom(chat)
    assert chat.wait(_LIMIT_S)
    user, model = chat.messages
    assert (user["role"], user["text"], user["status"]) == ("user", "Hi", "done")
    assert (model["role"], model["text"], model["status"]) == ("assistant", "Hello there.", "done")
    assert model["note"] == "3 tokens, 40.0 tokens/s, first token after 0.25 s"
    assert "".join(_texts(front_end, chat)) == "Hello there."
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
    front_end.wait_for(lambda: _texts(front_end, chat))
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
    assert len(_texts(front_end, chat)) <= 2 + 15 * seconds
    assert "".join(_texts(front_end, chat)) == chat.messages[1]["text"]


def test_offsets_count_as_the_browser_does(front_end, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    factory.made[0]._words = ["a😀", "b"]
    chat.ask("Hi")
    for count in (1, 2):
        gate.let()
        front_end.wait_for(lambda wanted=count: len(_texts(front_end, chat)) == wanted)
    assert chat.wait(_LIMIT_S)
    offsets = [content["offset"] for content in front_end.custom(chat) if content["type"] == "append"]
    # One letter and a surrogate pair.
    assert offsets == [0, 3]


def test_a_page_that_is_loaded_meanwhile_gets_the_text_so_far(front_end, chat, factory):
    gate = factory.made[0]._gate = Gate(is_open=False)
    chat.ask("Hi")
    gate.let()
    front_end.wait_for(lambda: _texts(front_end, chat))
    front_end.tell(chat, type="hello")
    assert {"type": "text", "number": 1, "text": "Hello"} in front_end.custom(chat)
    gate.open()
    assert chat.wait(_LIMIT_S)


def test_a_click_returns_at_once(front_end, chat, factory):
    factory.made[0]._gate = Gate(is_open=False)
    started_s = time.perf_counter()
    front_end.tell(chat, type="ask", text="Hi")
    assert time.perf_counter() - started_s < 0.05
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
    front_end.wait_for(lambda: _texts(front_end, chat))
    ready_session.unload()
    ready_session.wait(_LIMIT_S)
    gate.open()
    assert chat.wait(_LIMIT_S)
    assert chat.messages[1]["text"] == "Hello"
    assert "Load the model again" in chat.messages[1]["failure"]["next_step"]
    assert chat.ready is False


def test_new_chat_forgets(front_end, chat):
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="clear")
    assert chat.messages == []


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
