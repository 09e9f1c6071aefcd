import threading

import pytest

from workbench.errors import ConfigError
from workbench.telemetry import Sampler
from workbench.telemetry.sampler import _until_next_beat_s


class Counter:
    """Probe that counts its readings and says when it was read."""

    def __init__(self):
        self.num_reads = 0
        self.was_read = threading.Event()

    def read(self):
        self.num_reads += 1
        self.was_read.set()
        return {"reads": float(self.num_reads)}


class Broken:
    def read(self):
        raise OSError("no such sensor")


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def test_a_beat_stamps_every_number_with_the_clock():
    clock = Clock()
    sampler = Sampler([Counter()], clock=clock)
    sampler.beat()
    clock.now_s = 101.5
    sampler.beat()
    view = sampler.series["reads"].view()
    assert view.times_s == (100.0, 101.5)
    assert view.values == (1.0, 2.0)


def test_a_broken_probe_leaves_a_gap_and_its_message_and_the_others_go_on(caplog):
    sampler = Sampler([Broken(), Counter()])
    sampler.beat()
    sampler.beat()
    assert list(sampler.series) == ["reads"]
    assert len(sampler.series["reads"]) == 2
    assert sampler.errors == ("Broken: no such sensor",)
    # Said once, not at every beat.
    assert len(caplog.records) == 1


def test_the_thread_starts_reads_and_ends():
    probe = Counter()
    with Sampler([probe], interval_s=0.01, name="sampler-under-test") as sampler:
        assert probe.was_read.wait(5)
        probe.was_read.clear()
        assert probe.was_read.wait(5), "one beat, then silence"
        assert sampler.is_running
        sampler.start()
        assert [thread.name for thread in threading.enumerate()].count("sampler-under-test") == 1
    assert not sampler.is_running
    assert "sampler-under-test" not in [thread.name for thread in threading.enumerate()]


def test_it_starts_again_after_a_stop():
    probe = Counter()
    sampler = Sampler([probe], interval_s=0.01)
    for _ in range(2):
        probe.was_read.clear()
        with sampler:
            assert probe.was_read.wait(5)


def test_observers_hear_each_beat_until_they_leave_and_a_broken_one_stops_nobody(caplog):
    clock = Clock()
    heard = []
    sampler = Sampler([Counter()], clock=clock)

    def fail(time_s):
        raise RuntimeError("observer")

    sampler.observe(fail)
    forget = sampler.observe(heard.append)
    sampler.beat()
    forget()
    sampler.beat()
    assert heard == [100.0]


def test_stop_from_an_observer_does_not_wait_for_itself():
    stopped = threading.Event()
    sampler = Sampler([Counter()], interval_s=0.01)

    def stop(time_s):
        sampler.stop()
        stopped.set()

    sampler.observe(stop)
    sampler.start()
    assert stopped.wait(5)


@pytest.mark.parametrize(
    ("elapsed_s", "expected_s"),
    [(0.0, 1.0), (0.25, 0.75), (1.0, 1.0), (3.4, 0.6)],
)
def test_beats_stay_on_the_grid_of_the_start_and_missed_ones_are_skipped(elapsed_s, expected_s):
    assert _until_next_beat_s(50.0, 50.0 + elapsed_s, 1.0) == pytest.approx(expected_s)


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_beat_that_is_no_beat_is_refused(interval_s):
    with pytest.raises(ConfigError, match="interval_s"):
        Sampler([], interval_s=interval_s)
