"""An engine in a process of its own: its crash, its parent's end, a busy parent, and nothing left behind."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from engine import fake_launch
from engine.fake_launch import FakeLaunch
from engine.fake_runner import VOCAB_SIZE
from engine.gate import Gate

from workbench.engine.client import EngineClient
from workbench.engine.isolation.process_core import ProcessCore
from workbench.engine.sampling_params import SamplingParams
from workbench.errors import EngineStoppedError, LoadCancelled, ModelLoadError
from workbench.progress import no_progress
from workbench.telemetry import HostUsage

WAIT_S = 60
TESTS = str(Path(__file__).parents[2])
LONG = SamplingParams(max_tokens=None, ignore_eos=True)


@pytest.fixture(autouse=True)
def findable_in_the_child(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", TESTS)


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path)
    yield gate
    gate.remove()


class Started:
    """A client of an engine in a process."""

    def __init__(self, launch) -> None:
        self.core = ProcessCore(launch)
        self.core.wait_until_launched(no_progress)
        self.client = EngineClient(self.core.connect, max_context=4000, vocab_size=VOCAB_SIZE)

    def submit(self, prompt=(1, 2, 3), params=LONG):
        return self.client.submit(list(prompt), params)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop()


def is_gone(pid: int) -> bool:
    """Waits for a process that need not be ours; one that is dead and not yet collected counts as gone."""
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            try:
                process.wait(0.05)
            except psutil.TimeoutExpired:
                continue
    except psutil.NoSuchProcess:
        pass
    return True


def test_a_killed_process_ends_every_request_and_question_with_what_happened(gate):
    with Started(FakeLaunch(gate)) as engine:
        generations = [engine.submit(), engine.submit([4], SamplingParams(max_tokens=None, n=2))]
        gate.close()
        asked = []

        def ask():
            with pytest.raises(EngineStoppedError) as caught:
                engine.client.stats()
            asked.append(caught.value)

        asker = threading.Thread(target=ask)
        asker.start()
        while not engine.client._replies:
            pass
        os.kill(engine.core.pid, signal.SIGKILL)
        for generation in generations:
            with pytest.raises(EngineStoppedError, match=r"SIGKILL.*memory runs out.*llm\.restart_stopped\(\)"):
                generation.result(WAIT_S)
        asker.join(WAIT_S)
        assert "SIGKILL" in str(asked[0])
        assert not engine.client.is_alive
        # Who waits for faster kernels waits no longer.
        assert engine.core.runner_status.has_ended
        for act in (engine.submit, engine.client.stats):
            with pytest.raises(EngineStoppedError, match="SIGKILL"):
                act()


def test_a_crash_is_told_with_where_it_happened(gate):
    with Started(FakeLaunch(gate)) as engine:
        generation = engine.submit()
        gate.close()
        os.kill(engine.core.pid, signal.SIGSEGV)
        with pytest.raises(EngineStoppedError, match=r"(?s)crashed \(SIGSEGV\).*Segmentation fault"):
            generation.result(WAIT_S)


def test_what_the_load_raises_comes_over_and_ends_the_process(gate):
    core = ProcessCore(FakeLaunch(gate, sabotage=fake_launch.raise_unknown))
    with pytest.raises(ModelLoadError, match="Unheard: something new") as caught:
        core.wait_until_launched(no_progress)
    assert caught.value.__cause__ is None
    core._thread.join(WAIT_S)
    assert not core._thread.is_alive() and not core.is_alive


def test_a_process_that_is_lost_while_it_loads_is_an_error_of_the_load(gate):
    core = ProcessCore(FakeLaunch(gate, sabotage=fake_launch.kill_itself))
    with pytest.raises(ModelLoadError, match="cut off.*SIGKILL"):
        core.wait_until_launched(no_progress)
    core.stop()


def test_a_load_can_be_cancelled_and_then_there_is_no_process(gate):
    asked = []

    def cancel(progress):
        # Also while the process says nothing more, as in a long step of a load.
        asked.append(progress.stage)
        if asked.count("make weights") == 3:
            raise LoadCancelled("enough")

    core = ProcessCore(FakeLaunch(gate, sabotage=gate.wait_until_open))
    gate.lock()
    with pytest.raises(LoadCancelled):
        core.wait_until_launched(cancel)
    pid = core.pid
    core.kill()
    core.stop()
    assert not psutil.pid_exists(pid)


def test_a_load_that_is_stopped_before_there_is_a_process(gate):
    core = ProcessCore(FakeLaunch(gate))
    core.kill()
    core.stop()
    assert not core.is_alive
    with pytest.raises(ModelLoadError, match="cut off"):
        core.wait_until_launched(no_progress)


_PARENT = """
import os, subprocess, sys, time
from pathlib import Path
from engine.isolation.test_process_core import FakeLaunch, Gate, Started
engine = Started(FakeLaunch(Gate(Path(sys.argv[1]))))
# What a fork holds of this process must not keep the engine's process alive.
sleeper = os.fork() or time.sleep(600)
engine.submit()
print(engine.core.pid, sleeper, flush=True)
time.sleep(600)
"""


def test_it_ends_when_its_parent_is_killed(tmp_path):
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, str(Path(TESTS).parent)])}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    pid, sleeper = map(int, parent.stdout.readline().split())
    try:
        assert psutil.Process(pid).ppid() == parent.pid
        parent.kill()
        parent.wait()
        assert is_gone(pid)
    finally:
        os.kill(sleeper, signal.SIGKILL)
        parent.stdout.close()


def test_it_outlives_the_thread_that_loaded(gate):
    started = []
    loader = threading.Thread(target=lambda: started.append(Started(FakeLaunch(gate))))
    loader.start()
    loader.join()
    with started[0] as engine:
        assert len(engine.submit(params=SamplingParams(max_tokens=5)).result(WAIT_S).token_ids) == 5


def test_ctrl_c_in_a_terminal_reaches_the_parent_only(gate):
    with Started(FakeLaunch(gate)) as engine:
        assert os.getpgid(engine.core.pid) == os.getpgid(0)
        os.kill(engine.core.pid, signal.SIGINT)
        assert len(engine.submit(params=SamplingParams(max_tokens=5)).result(WAIT_S).token_ids) == 5


def test_it_computes_on_while_a_cell_keeps_the_interpreter_to_itself(tmp_path):
    gate = Gate(tmp_path, ring_at_step=2000)
    with Started(FakeLaunch(gate)) as engine:
        engine.submit()
        # A call into C that does not let go of the interpreter: no thread of this process runs until the bell rings.
        poll = ctypes.PyDLL(None).poll
        watched = (ctypes.c_uint32 * 2)(gate.fileno(), select.POLLIN)
        assert poll(watched, 1, WAIT_S * 1000) == 1
    gate.remove()


def test_one_that_does_not_answer_is_ended_all_the_same(gate):
    engine = Started(FakeLaunch(gate))
    pid = engine.core.pid
    generation = engine.submit()
    os.kill(pid, signal.SIGSTOP)
    engine.core.stop(timeout_s=0.1)
    assert not psutil.pid_exists(pid)
    with pytest.raises(EngineStoppedError, match="was stopped"):
        generation.result(WAIT_S)


def test_nothing_is_left_behind(gate):
    def held():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), set(threading.enumerate()), set(psutil.Process().children())

    # What Python opens once for all children of a process is there after the first of them.
    with Started(FakeLaunch(gate)):
        pass
    num_fds, threads, children = held()
    for end in (signal.SIGTERM, None):
        with Started(FakeLaunch(gate)) as engine:
            engine.submit(params=SamplingParams(max_tokens=5)).result(WAIT_S)
            if end is not None:
                os.kill(engine.core.pid, end)
                engine.core._thread.join(WAIT_S)
    # What other tests had may have gone meanwhile; nothing may have come.
    num_fds_after, threads_after, children_after = held()
    assert num_fds_after <= num_fds
    assert threads_after <= threads
    assert children_after <= children


def test_its_log_and_its_runners_words_are_heard_here(gate, caplog):
    gate.lock()
    with caplog.at_level(logging.WARNING), Started(FakeLaunch(gate, sabotage=fake_launch.log_a_warning)) as engine:
        assert ("engine.fake", logging.WARNING, "hot: 90 degrees") in caplog.record_tuples
        assert str(engine.core.runner_status) == "a hash"
        changed = threading.Event()
        engine.core.runner_status.on_change = lambda words: changed.set()
        gate.open()
        assert changed.wait(WAIT_S)
        assert str(engine.core.runner_status) == "a faster hash"


def test_its_memory_counts_until_it_ends(gate):
    with Started(FakeLaunch(gate)) as engine:
        held = engine.client.held_bytes("cpu")
        assert held["cpu"] > 10 * 1024**2
        here = HostUsage().read_usage()
        assert engine.client.read_usage(HostUsage()).process > here.process + 0.5 * held["cpu"]
    assert engine.client.held_bytes("cpu") == {"cpu": 0}
