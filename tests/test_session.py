import gc
import threading
import weakref
from dataclasses import replace

import pytest
from fake_llm import FakeFactory, FakeLlama, Gate

from workbench.errors import ConfigError, EngineStoppedError, ModelFormatError
from workbench.parallel import GPUConfig
from workbench.session import LoadChoice, LoadedFacts, Session, SessionState

EMPTY, LOADING, READY = SessionState.EMPTY, SessionState.LOADING, SessionState.READY
UNLOADING, FAILED = SessionState.UNLOADING, SessionState.FAILED


@pytest.fixture
def factory():
    return FakeFactory()


@pytest.fixture
def session(factory):
    with Session(factory) as session:
        yield session


def _states_of(session):
    """Every state it goes through from now on, without repeats."""
    seen = []

    def note(status):
        if not seen or seen[-1] is not status.state:
            seen.append(status.state)

    session.observe(note)
    return seen


def test_load_goes_through_loading_to_ready_with_progress(session):
    progress = []
    session.observe(lambda status: progress.append(status.progress))
    states = _states_of(session)
    session.load(LoadChoice("tiny", "cpu", "bf16", 512))
    status = session.wait(60)
    assert states == [LOADING, READY]
    assert [step.fraction for step in progress if step] == [0.0, 0.25, 0.5, 0.75]
    assert status.facts == LoadedFacts("tiny", "cpu", "bf16", 512)
    assert status.progress is None


def test_load_returns_at_once_and_the_worker_ends_with_its_work(session, factory):
    factory.load_gate = Gate(is_open=False)
    session.load(LoadChoice())
    assert factory.load_gate.was_reached.wait(60)
    assert session.status.state is LOADING
    assert not session.is_settled
    workers = [thread for thread in threading.enumerate() if thread.name == "workbench-session"]
    assert len(workers) == 1
    factory.load_gate.open()
    session.wait(60)
    workers[0].join(10)
    assert not workers[0].is_alive()


def test_the_same_choice_again_is_no_work(session, factory):
    session.load(LoadChoice())
    session.wait(60)
    session.load(LoadChoice())
    assert session.is_settled
    assert len(factory.choices) == 1


def test_the_same_choice_again_loads_anew_when_the_engine_has_died(session, factory):
    session.load(LoadChoice())
    session.wait(60)
    factory.made[0].is_unloaded = True
    session.load(LoadChoice())
    assert session.wait(60).state is READY
    assert session.llm is factory.made[1]


def test_another_choice_unloads_the_first_before_it_loads(session, factory):
    session.load(LoadChoice("one"))
    session.wait(60)
    states = _states_of(session)
    session.load(LoadChoice("two"))
    session.wait(60)
    assert states == [UNLOADING, LOADING, READY]
    assert [llm.is_unloaded for llm in factory.made] == [True, False]
    assert session.llm is factory.made[1]


def test_cancel_stops_a_load_at_its_next_progress(session, factory):
    factory.load_gate = Gate(is_open=False)
    session.load(LoadChoice())
    assert factory.load_gate.was_reached.wait(60)
    observed = []
    session.observe(observed.append)
    session.cancel()
    # It is said at once, whatever the load waits for.
    assert [(status.state, status.is_cancelling) for status in observed] == [(LOADING, True)]
    factory.load_gate.open()
    status = session.wait(60)
    assert (status.state, status.is_cancelling) == (EMPTY, False)
    assert factory.made == []


def test_a_load_that_finishes_in_spite_of_cancel_is_unloaded(session, factory):
    factory.num_steps = 1
    factory.load_gate = Gate(is_open=False)
    states = _states_of(session)
    session.load(LoadChoice())
    assert factory.load_gate.was_reached.wait(60)
    session.cancel()
    factory.load_gate.open()
    assert session.wait(60).state is EMPTY
    assert factory.made[0].is_unloaded
    assert READY not in states


def test_the_last_of_many_wishes_wins(session, factory):
    factory.load_gate = Gate(is_open=False)
    for name in ("one", "two", "three"):
        session.load(LoadChoice(name))
    factory.load_gate.open()
    status = session.wait(60)
    assert status.facts.model == "three"
    assert sum(not llm.is_unloaded for llm in factory.made) == 1


def test_unload_says_what_was_freed(session, factory):
    session.load(LoadChoice())
    session.wait(60)
    session.unload()
    status = session.wait(60)
    assert status.state is EMPTY
    assert status.freed_bytes == {"cpu": 500_000_000}
    assert factory.made[0].is_unloaded


def test_a_failed_load_is_told_in_words_and_the_next_load_works(session, factory):
    factory.load_error = ModelFormatError("model.safetensors is cut short")
    session.load(LoadChoice("broken"))
    status = session.wait(60)
    assert status.state is FAILED
    assert status.failure.cause == "model.safetensors is cut short"
    factory.load_error = None
    session.load(LoadChoice("broken"))
    assert session.wait(60).state is READY


class Big:
    """Stands for tensors that were half loaded."""


def test_a_failed_load_pins_nothing():
    watch = []

    def fail(choice, progress):
        big = Big()
        watch.append(weakref.ref(big))
        cycle = [big]
        cycle.append(cycle)
        raise RuntimeError("half way")

    with Session(fail) as session:
        session.load(LoadChoice())
        assert session.wait(60).failure.cause == "RuntimeError: half way"
        gc.collect()
        assert watch[0]() is None


def test_a_broken_observer_stops_neither_the_load_nor_the_others(session, caplog):
    def fail(status):
        raise ValueError("observer")

    session.observe(fail)
    states = _states_of(session)
    session.load(LoadChoice())
    assert session.wait(60).state is READY
    assert states == [LOADING, READY]


def test_an_observer_that_left_hears_nothing(session):
    heard = []
    forget = session.observe(heard.append)
    forget()
    forget()
    session.load(LoadChoice())
    session.wait(60)
    assert heard == []


def test_an_observer_may_ask_for_the_next_thing(session, factory):
    def chain(status):
        if status.state is READY and status.facts.model == "one":
            session.load(LoadChoice("two"))

    session.observe(chain)
    session.load(LoadChoice("one"))
    assert session.wait(60).facts.model == "two"


def test_submit_goes_to_the_engine_and_needs_one(session, factory):
    with pytest.raises(EngineStoppedError, match="no model is loaded"):
        session.submit("hi")
    assert session.stats() is None
    session.load(LoadChoice())
    session.wait(60)
    text = "".join(chunk.text for chunk in session.submit("hi", max_tokens=3))
    assert text == "Hello there."
    assert factory.made[0].requests == [{"prompt": "hi", "messages": None, "max_tokens": 3}]
    assert session.stats().generated_tokens_total == 3


def _adopted():
    return FakeLlama(LoadChoice("mine"), words=["x"], gate=Gate(), error=None)


def test_an_adopted_engine_is_shared_and_left_alone_by_close():
    llm = _adopted()
    llm.parallel = GPUConfig(num_gpus=2, strategy="data")
    session = Session(FakeFactory())
    states = _states_of(session)
    session.adopt(llm)
    assert states == [READY]
    # The next model is loaded in the same way.
    assert session.status.choice.parallel == llm.parallel
    assert session.llm is llm
    session.close()
    assert not llm.is_unloaded
    assert session.status.state is EMPTY


def test_an_adopted_engine_is_loaded_again_as_it_was(session, factory):
    asked = LoadChoice("mine", "cuda", "bf16", 512, gpus=(1,), kv_dtype="fp8", cpu_offload_layers=3, engine_name="vllm")
    asked = replace(asked, draft_model="small")
    session.adopt(FakeLlama(asked, words=["x"], gate=Gate(), error=None))
    assert session.status.choice == asked


def test_an_adopted_engine_is_unloaded_when_the_user_says_so(session):
    llm = _adopted()
    session.adopt(llm)
    session.adopt(llm)
    session.unload()
    session.wait(60)
    assert llm.is_unloaded


def test_what_is_announced_is_loading_until_it_is_adopted(session, factory):
    session.announce("tiny")
    assert (session.status.state, session.is_settled) == (LOADING, False)
    for change in (lambda: session.load(LoadChoice("other")), session.unload):
        with pytest.raises(ConfigError, match="tiny is being loaded"):
            change()
    session.adopt(factory(LoadChoice("tiny"), lambda progress: None))
    assert (session.status.state, session.is_settled) == (READY, True)
    session.load(LoadChoice("other"))
    assert session.wait(60).facts.model == "other"


def test_an_unloaded_engine_is_not_adopted(session):
    llm = _adopted()
    llm.unload()
    with pytest.raises(EngineStoppedError, match="llm is unloaded"):
        session.adopt(llm)
    assert session.status.state is EMPTY


def test_adopting_over_a_loaded_model_is_refused(session):
    session.load(LoadChoice())
    session.wait(60)
    with pytest.raises(ConfigError, match="loaded already"):
        session.adopt(_adopted())


def test_close_unloads_its_own_engine_and_then_refuses_work(factory):
    session = Session(factory)
    session.load(LoadChoice())
    session.wait(60)
    session.close()
    session.close()
    assert factory.made[0].is_unloaded
    with pytest.raises(EngineStoppedError, match="closed"):
        session.load(LoadChoice())


def test_close_cancels_a_running_load(factory):
    factory.load_gate = Gate(is_open=False)
    session = Session(factory)
    session.load(LoadChoice())
    assert factory.load_gate.was_reached.wait(60)
    session.close(timeout_s=0)
    factory.load_gate.open()
    session.wait(60)
    assert factory.made == []


def test_waiting_has_an_end(session, factory):
    factory.load_gate = Gate(is_open=False)
    session.load(LoadChoice())
    with pytest.raises(TimeoutError, match=r"after 0\.05 s"):
        session.wait(0.05)
    factory.load_gate.open()


def test_a_session_nobody_holds_is_collected(factory):
    session = Session(factory)
    session.load(LoadChoice())
    session.wait(60)
    watch = weakref.ref(session)
    del session
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("fields", [{"model": ""}, {"model": "  "}, {"model": None}, {"context_length": 0}])
def test_a_choice_that_is_none_is_refused(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        LoadChoice(**fields)


def _on_a_cluster(session, factory, running=()):
    """A loaded model that another finds room beside; `running` are its requests."""
    session.load(LoadChoice("tiny"))
    session.wait(60)
    (llm,) = factory.made
    llm.has_room, llm.requests = True, lambda: running
    return llm


def test_on_a_cluster_a_model_serves_until_the_next_one_does(session, factory):
    before = _on_a_cluster(session, factory)
    factory.load_gate = Gate(is_open=False)
    states = _states_of(session)
    session.load(LoadChoice("other"))
    assert factory.load_gate.was_reached.wait(60)
    assert session.status.state is READY
    assert session.llm is before
    factory.load_gate.open()
    assert session.wait(60).facts.model == "other"
    assert (session.llm, before.is_unloaded) == (factory.made[1], True)
    assert states == [READY]


def test_on_a_cluster_requests_of_the_last_model_end_before_it_goes(session, factory):
    running = ["one"]
    before = _on_a_cluster(session, factory, running)
    took_over = threading.Event()
    session.observe(lambda status: took_over.set() if status.facts and status.facts.model == "other" else None)
    session.load(LoadChoice("other"))
    assert took_over.wait(60)
    assert (before.is_unloaded, session.is_settled) == (False, False)
    running.clear()
    session.wait(60)
    assert before.is_unloaded


def test_on_a_cluster_a_model_stays_when_the_next_one_fails(session, factory):
    before = _on_a_cluster(session, factory)
    factory.load_error = ModelFormatError("no such tensor")
    session.load(LoadChoice("broken"))
    status = session.wait(60)
    assert (status.state, status.facts.model, status.failure.cause) == (READY, "tiny", "no such tensor")
    assert session.llm is before
    assert before.was_reclaimed
    assert not before.is_unloaded
