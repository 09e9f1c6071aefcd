import threading

import pytest
from fake_llm import Gate

from widgets import LoadBar
from workbench.errors import ConfigError, ModelNotFoundError
from workbench.session import LoadChoice


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def bar(front_end, session):
    return LoadBar(session, lambda: LoadChoice("tiny", "cpu", "bf16"))


def test_load_and_unload_by_clicks(front_end, session, bar):
    assert (bar.headline, bar.actions) == ("No model loaded", ["load"])
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.state == "ready")
    assert bar.headline == "tiny is ready: cpu, bf16"
    assert bar.detail == "context 2048 tokens"
    assert bar.actions == ["load", "unload"]
    front_end.tell(bar, type="unload")
    front_end.wait_for(lambda: bar.state == "empty")
    assert bar.headline == "No model loaded; unloading freed 500 MB on cpu"


def test_progress_is_shown_and_cancel_works(front_end, session, factory, bar):
    factory.load_gate = Gate(is_open=False)
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.detail == "load weights: 0 MB of 4 MB")
    assert (bar.state, bar.headline, bar.fraction, bar.actions) == ("loading", "Loading tiny", 0.0, ["cancel"])
    front_end.tell(bar, type="cancel")
    assert (bar.headline, bar.detail) == ("Cancelling the load of tiny", "as soon as this step ends: load weights")
    assert bar.actions == ["load"]
    factory.load_gate.open()
    front_end.wait_for(lambda: bar.state == "empty")
    assert factory.made == []


def test_a_click_on_what_cannot_be_done_now_does_nothing(front_end, session, factory, bar):
    front_end.tell(bar, type="unload")
    front_end.tell(bar, type="cancel")
    front_end.tell(bar, type="destroy")
    assert session.is_settled
    assert factory.choices == []


def test_a_failure_has_cause_and_next_step_and_goes_with_the_next_load(front_end, session, factory, bar):
    factory.load_error = ModelNotFoundError("no model 'tiny'")
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.state == "failed")
    assert bar.failure["cause"] == "no model 'tiny'"
    assert "Check the spelling" in bar.failure["next_step"]
    assert bar.headline == "tiny could not be loaded"
    factory.load_error = None
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.state == "ready")
    assert bar.failure is None


def test_a_choice_that_cannot_be_made_is_a_failure_too(front_end, session):
    bar = LoadBar(session, lambda: LoadChoice(""))
    front_end.tell(bar, type="load")
    assert "model is ''" in bar.failure["cause"]


def test_many_steps_of_progress_are_few_messages_and_the_end_is_never_dropped(front_end, session, factory):
    clock = Clock()
    bar = LoadBar(session, clock=clock)
    factory.num_steps = 500
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.state == "ready")
    assert len(front_end.updates(bar)) < 5


def test_the_last_step_before_a_pause_is_shown(front_end, session, factory, bar):
    factory.load_gate = Gate(is_open=False)
    front_end.tell(bar, type="load")
    factory.load_gate.let(2)
    front_end.wait_for(lambda: bar.detail == "load weights: 2 MB of 4 MB")
    factory.load_gate.open()


def test_one_change_of_state_is_one_message(front_end, session, factory, bar):
    factory.num_steps = 0
    num_before = len(front_end.updates(bar))
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.state == "ready")
    session.wait(20)
    assert [update["state"] for update in front_end.updates(bar)[num_before:]] == ["loading", "ready"]


def test_a_click_returns_at_once_while_a_load_runs(front_end, session, factory, bar):
    factory.load_gate = Gate(is_open=False)
    front_end.tell(bar, type="load")
    front_end.wait_for(lambda: bar.state == "loading")
    # The load cannot end before the gate opens: a click that waited for it would not come back.
    front_end.tell(bar, type="cancel")
    assert session.status.state.value != "ready"
    factory.load_gate.open()


def test_close_leaves_the_session_alone_and_hears_no_more(front_end, session, bar):
    bar.close()
    session.load(LoadChoice())
    session.wait(20)
    assert bar.state == "empty"


def test_text_has_no_sizes(front_end, session, bar):
    assert repr(bar) == "LoadBar\n  state  no model loaded"
    bar.load()
    session.wait(20)
    assert repr(bar) == "LoadBar\n  state  ready: tiny, cpu, bf16"
    assert threading.current_thread() is threading.main_thread()


def test_an_engine_in_place_of_a_session_is_refused_in_words(front_end, ready_session):
    with pytest.raises(ConfigError, match="FakeLlama is no Session"):
        LoadBar(ready_session.llm)
