import pytest
from fake_llm import Gate

from widgets import ChatBox, RunHistory
from workbench.conversation import Message, MessageStatus, ReplyFigures
from workbench.errors import ConfigError
from workbench.run_log import RunLog
from workbench.session import LoadChoice


def _reply(tokens_per_s):
    figures = ReplyFigures("m", "stop", 7, 0, 3, 0.25, 1.0, tokens_per_s, 2048, 5)
    return Message(1, "assistant", "Hi", MessageStatus.DONE, figures=figures)


def test_loads_and_replies_become_rows(front_end, session, factory):
    history = RunHistory(session)
    session.load(LoadChoice("m"))
    session.wait(20)
    history.note_reply(_reply(40.0), {"temperature": 0.5, "stop": ["a b"]})
    load, reply = history.rows
    assert (load["kind"], load["outcome"]) == ("load", "ready")
    assert (reply["tokens_per_s"], reply["settings"]) == ("40", "stop=['ab'] temperature=0.5")
    assert len(history.frame) == 2
    assert repr(history) == "RunHistory (2 runs)\n  1 load   m: ready\n  2 reply  m: stop"
    history.close()
    factory.load_gate = Gate()
    session.unload()
    session.load(LoadChoice("m"))
    session.wait(20)
    assert len(history.runs) == 2


def test_replies_of_chats_on_the_session_or_on_its_engine_become_rows_once(front_end, ready_session):
    history, of_engine, elsewhere = RunHistory(ready_session), RunHistory(ready_session.llm), RunHistory()
    sampling = {"temperature": 0.5}
    chat = ChatBox(ready_session, sampling=sampling, on_reply=lambda message: history.note_reply(message, sampling))
    other = ChatBox(ready_session.llm, sampling=sampling)
    for box in (chat, other):
        box.ask("Hi")
        assert box.wait(20)
    assert [run.settings for run in history.runs.runs] == ["engine=paged temperature=0.5"] * 2
    assert (history.runs.runs[0].backend, history.runs.runs[0].context) == ("cpu", 2048)
    assert (len(of_engine.runs), len(elsewhere.runs)) == (2, 0)
    assert (history.hint, elsewhere.hint[:18]) == ("loads and replies are noted here", "nothing is watched")
    history.close()
    chat.ask("Hi")
    assert chat.wait(20)
    assert (len(history.runs), len(of_engine.runs)) == (3, 3)
    for widget in (chat, other, of_engine, elsewhere):
        widget.close()
    with pytest.raises(ConfigError, match="is neither a LlamaGPU nor a Session"):
        RunHistory("x")


def test_two_ticked_rows_are_compared_and_a_third_replaces_the_first(front_end):
    history = RunHistory()
    for rate in (40.0, 50.0, 60.0):
        history.note_reply(_reply(rate), {})
    for number in (1, 2):
        front_end.tell(history, type="choose", number=number)
    assert history.differences == [["tokens_per_s", "40", "50"]]
    front_end.tell(history, type="choose", number=3)
    assert history.chosen == [2, 3]
    front_end.tell(history, type="choose", number=3)
    assert (history.chosen, history.differences) == ([2], [])
    history.close()


def test_csv_goes_to_the_browser_and_a_wrong_address_is_said(front_end):
    history = RunHistory(log=RunLog())
    history.note_reply(_reply(40.0), {})
    front_end.tell(history, type="csv")
    assert front_end.custom(history)[-1]["text"] == history.to_csv()
    front_end.tell(history, type="s3", url="nowhere")
    front_end.wait_for(lambda: history.failure)
    assert "nowhere" in history.failure["cause"]
    history.close()
