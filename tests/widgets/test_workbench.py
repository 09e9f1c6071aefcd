import gc
import threading
import weakref

import plotly.graph_objects as go
import pytest
from fake_llm import FakeLlama, Gate

from widgets import Workbench
from workbench.errors import ConfigError, EngineStoppedError, RequestError
from workbench.session import LoadChoice, SessionState

_LIMIT_S = 20


@pytest.fixture
def open_panel(front_end, menu):
    """Makes panels as a cell does, and closes what is left."""
    panels = []

    def open_panel(*args, **settings):
        panels.append(Workbench(*args, menu=menu, **settings))
        return panels[-1]

    yield open_panel
    for panel in panels:
        panel.close()


def _threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("workbench-")]


def test_load_chat_and_unload_through_messages(front_end, open_panel, session, factory):
    panel = open_panel(session=session)
    front_end.tell(panel.picker, type="choose", field="backend", value="cpu")
    front_end.tell(panel.load_bar, type="load")
    front_end.wait_for(lambda: panel.load_bar.state == "ready")
    assert factory.choices == [LoadChoice("default", "cpu")]
    front_end.tell(panel.chat, type="ask", text="Hi")
    front_end.wait_for(lambda: panel.chat.messages and panel.chat.messages[-1]["status"] == "done")
    assert panel.chat.messages[-1]["text"] == "Hello there."
    front_end.tell(panel.load_bar, type="unload")
    front_end.wait_for(lambda: panel.load_bar.state == "empty")
    assert factory.made[0].is_unloaded


def test_one_figure_widget_a_panel(open_panel, session):
    def figures(widget):
        own = [widget] if isinstance(widget, go.FigureWidget) else []
        return own + [found for child in getattr(widget, "children", ()) for found in figures(child)]

    assert len(figures(open_panel(session=session))) == 1


def test_a_pick_is_for_the_reply_it_was_shown_of_or_refused(front_end, open_panel, ready_session):
    panel = open_panel(session=ready_session)
    chat, heatmap = panel.chat, panel.heatmap
    chat.looks_inside = True
    chat.ask("Hi")
    assert chat.wait(_LIMIT_S)
    front_end.tell(chat, type="inspect", number=1)
    front_end.tell(chat, type="edit", number=0, text="Hello")
    assert chat.wait(_LIMIT_S)
    # The other version of the question is shown again, with what the model makes of its reply.
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    assert chat.wait(_LIMIT_S)
    assert [message["text"] for message in chat.messages] == ["Hi", "ACHello there."]
    # Its number is that of another message in the conversation that is open now; its own is opened again.
    chat.import_json('[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]')
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    assert chat.wait(_LIMIT_S)
    assert [message["text"] for message in chat.messages] == ["Hi", "ACHello there."]
    assert chat.messages[1]["versions"] == 3
    chat.clear()
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    assert "earlier conversation" in heatmap.failure["cause"]
    assert [message["text"] for message in chat.messages] == ["Q", "A"]


def test_running_the_cell_again_replaces_the_panel_and_keeps_the_model(front_end, open_panel, session, factory):
    first = open_panel(session=session)
    session.load(LoadChoice())
    session.wait(_LIMIT_S)
    second = open_panel(session=session)
    assert first.comm is None
    assert second.session is session
    assert second.load_bar.state == "ready"
    assert _threads().count("workbench-sampler") == 1


def test_running_the_cell_again_keeps_the_conversations(front_end, open_panel, ready_session, factory):
    first = open_panel(session=ready_session, system="Be brief.")
    first.chat.ask("one")
    assert first.chat.wait(_LIMIT_S)
    first.chat.new_chat()
    gate = factory.made[0]._gate = Gate(is_open=False)
    first.chat.ask("two")
    gate.let()
    front_end.wait_for(lambda: first.chat.conversation.messages[-1].text)
    # Its reply is stopped, and what has come of it is there.
    second = open_panel(session=ready_session, system="Rhyme.")
    assert [one["title"] for one in second.chat.conversations] == ["two", "one"]
    user, model = second.chat.messages
    assert (user["text"], model["text"], model["status"]) == ("two", "Hello", "stopped")
    assert second.chat.conversation.system == second.chat.system == "Rhyme."
    gate.open()
    second.chat.regenerate()
    assert second.chat.wait(_LIMIT_S)
    assert second.chat.messages[1]["text"] == "Hello there."


def test_its_own_engine_is_handed_over_only_for_the_same_request(open_panel, factory):
    first = open_panel(precision="fp32")
    first.session._factory = factory
    first.load_bar.load()
    first.session.wait(_LIMIT_S)
    second = open_panel(precision="fp32")
    assert second.session is first.session
    assert second.session.status.state is SessionState.READY
    third = open_panel(precision="bf16")
    assert third.session is not first.session
    assert factory.made[0].is_unloaded


def test_panels_of_other_names_stay(open_panel, session):
    first = open_panel(session=session, name="one")
    open_panel(session=session, name="two")
    assert first.comm is not None


def test_close_leaves_no_comm_no_thread_and_no_object(front_end, menu, session):
    threads = _threads()
    panel = Workbench(session=session, menu=menu)
    panel.close()
    panel.close()
    assert _threads() == threads
    assert front_end.opened() == front_end.closed()
    watch = weakref.ref(panel)
    del panel
    gc.collect()
    assert watch() is None


def test_close_unloads_what_the_panel_loaded(open_panel, factory):
    panel = open_panel()
    panel.session._factory = factory
    panel.load_bar.load()
    panel.session.wait(_LIMIT_S)
    panel.close()
    assert factory.made[0].is_unloaded


def test_a_lent_session_is_left_loaded(open_panel, ready_session, factory):
    with open_panel(session=ready_session):
        pass
    assert not factory.made[0].is_unloaded


def _llm():
    return FakeLlama(LoadChoice("mine"), words=["x"], gate=Gate(), error=None)


def test_an_engine_from_a_cell_is_shared(open_panel):
    llm = _llm()
    panel = open_panel(llm)
    assert panel.load_bar.headline == "mine is ready: cpu, fp32"
    panel.chat.ask("Hi")
    assert panel.chat.wait(_LIMIT_S)
    assert llm.requests
    again = open_panel(llm)
    assert again.load_bar.state == "ready"
    again.close()
    assert not llm.is_unloaded


def test_another_engine_replaces_the_shared_one_without_unloading_it(open_panel):
    first, second = _llm(), _llm()
    open_panel(first)
    panel = open_panel(second)
    assert panel.session.is_sharing(second)
    assert not first.is_unloaded


def test_an_unloaded_engine_is_refused_and_the_earlier_panel_stays(open_panel, session):
    first, llm = open_panel(session=session), _llm()
    llm.unload()
    with pytest.raises(EngineStoppedError, match="llm is unloaded"):
        open_panel(llm)
    assert first.comm is not None


def test_an_engine_and_a_session_at_once_are_refused(open_panel, session):
    with pytest.raises(ConfigError, match="llm and session"):
        open_panel(_llm(), session=session)


def test_a_refused_panel_leaves_the_earlier_one_open(open_panel, session):
    first = open_panel(session=session)
    with pytest.raises(ConfigError, match="torch was built without CUDA"):
        open_panel(session=session, backend="cuda")
    assert first.comm is not None


def test_text_and_page_are_the_same_in_every_run(open_panel, session):
    bundle = open_panel(session=session)._repr_mimebundle_()
    assert bundle["text/plain"] == (
        "Workbench 'workbench'\n"
        "  model      default\n"
        "  backend    auto\n"
        "  precision  auto\n"
        "  state      no model loaded\n"
        "  chat       0 messages\n"
        "  plot       memory, by owner, busy, speed, first token, requests, KV pool over the last 120 s"
    )
    assert "<table>" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_headless_shows_text_only_and_leaves_no_code_in_an_executed_notebook(
    front_end, open_panel, session, monkeypatch
):
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    panel = open_panel(session=session)
    assert list(panel._repr_mimebundle_()) == ["text/plain", "text/html"]
    panel.picker.choose("context_length", 256)
    assert panel.picker.context_length == 256
    # nbconvert keeps the state of every widget that it hears of: of these only the plain boxes are left.
    assert panel.model_id not in front_end.opened() and panel.chat.model_id not in front_end.opened()
    assert "_esm" not in str(front_end._messages)


def test_what_a_panel_refuses_leaves_the_open_one_alone(front_end, open_panel, session):
    panel = open_panel(session=session)
    for settings, words in (({"temperature": -1}, "temperature=-1"), ({"bogus": 1}, "bogus")):
        with pytest.raises(RequestError, match=words):
            open_panel(session=session, sampling=settings)
    for wrong in ({"llm": "x"}, {"session": "x"}):
        with pytest.raises(ConfigError, match="str is no"):
            open_panel(**wrong)
    assert panel.model_id not in front_end.closed()
    assert open_panel(session=session).session is session
