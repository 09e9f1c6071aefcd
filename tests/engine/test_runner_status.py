"""Who waits for the way to compute that stays hears of it, and knows since when it has computed."""

import threading
from dataclasses import replace
from types import SimpleNamespace

from engine.fake_launch import FakeLaunch
from engine.gate import Gate

from workbench.engine import build
from workbench.engine.runner_status import MEANWHILE, RunnerStatus
from workbench.llm import _note_run
from workbench.progress import no_progress


def test_a_way_that_stays_from_the_start_is_not_waited_for() -> None:
    status = RunnerStatus("captured graphs", clock=lambda: 5.0)
    assert status.wait_until_final() and not status.is_provisional and status.final_at == 5.0


def test_the_switch_wakes_who_waits() -> None:
    times = iter([1.0, 9.0])
    status = RunnerStatus(f"{MEANWHILE}kernels are being compiled", clock=lambda: next(times))
    said: list[str] = []
    status.on_change = said.append
    assert not status.wait_until_final(0)
    waiting = threading.Thread(target=status.wait_until_final)
    waiting.start()
    status.words = "captured graphs"
    waiting.join(60)
    assert not waiting.is_alive() and status.final_at == 9.0 and said == ["captured graphs"]
    # Other words for what stays change nothing about when that began.
    status.words = "captured graphs, still"
    assert status.final_at == 9.0


def test_nobody_waits_for_an_engine_that_has_ended() -> None:
    status = RunnerStatus(f"{MEANWHILE}kernels are being compiled")
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(status.wait_until_final()))
    waiting.start()
    status.end()
    waiting.join(60)
    assert found == [False] and not status.is_provisional
    ready = RunnerStatus("captured graphs")
    ready.end()
    assert ready.wait_until_final()


def test_unloading_an_engine_in_a_thread_wakes_who_waits_for_its_kernels(tmp_path, monkeypatch) -> None:
    built = FakeLaunch(Gate(tmp_path)).build(no_progress)
    status = RunnerStatus(f"{MEANWHILE}kernels are being compiled")
    facts = replace(built.facts, spec=SimpleNamespace(vocab_size=50))
    monkeypatch.setattr(build, "build_engine", lambda: replace(built, facts=facts, runner_status=status))
    started = build.start_engine()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(started.runner_status.wait_until_final()), daemon=True)
    waiting.start()
    started.client.stop()
    waiting.join(60)
    assert found == [False]


def test_plans_learn_nothing_from_answers_of_the_slower_way() -> None:
    status = RunnerStatus(f"{MEANWHILE}kernels are being compiled", clock=lambda: 100.0)
    learnt: list[float] = []
    record = SimpleNamespace(finished=lambda row: learnt.append(row.submitted_at))
    _note_run(record, status, SimpleNamespace(submitted_at=80.0))
    status.words = "captured graphs"
    for submitted_at in (99.0, 101.0):
        _note_run(record, status, SimpleNamespace(submitted_at=submitted_at))
    assert learnt == [101.0]
