import gc
import json
import threading

import plotly.graph_objects as go
import pytest

from widgets import LivePlot, MemoryMonitor, ThroughputMonitor
from widgets.live_plot import gpu_probes
from workbench.backends import BackendStatus, CPUBackend, CUDABackend, DeviceInfo
from workbench.errors import ConfigError
from workbench.telemetry import Sampler


class Machine:
    """Probe whose numbers the test sets; also the clock."""

    def __init__(self):
        self.now_s = 0.0
        self.memory_bytes = 1e9
        self.tokens_per_s = 0.0

    def read(self):
        return {"process_memory_bytes": self.memory_bytes, "generated_tokens_per_s": self.tokens_per_s}

    def clock(self):
        return self.now_s

    def advance(self, sampler, seconds=1.0):
        self.now_s += seconds
        sampler.beat()


class HandSampler(Sampler):
    """Beats only when the test says so."""

    def start(self):
        pass


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def sampler(machine):
    return HandSampler([machine], clock=machine.clock)


@pytest.fixture
def plot(front_end, sampler):
    plot = LivePlot(statuses=[], sampler=sampler)
    yield plot
    plot.close()


def _redraws(front_end, plot):
    return [update for update in front_end.updates(plot.figure) if update.get("_py2js_update")]


def _show(front_end, plot, visible=True):
    front_end.tell(plot.note, type="visible", view="v1", visible=visible)
    front_end.tell(plot.figure, type="drawn")


def test_nothing_is_drawn_before_somebody_sees_it(front_end, machine, sampler, plot):
    machine.advance(sampler)
    assert _redraws(front_end, plot) == []
    _show(front_end, plot)
    machine.advance(sampler)
    assert len(_redraws(front_end, plot)) == 1
    assert list(plot.figure.data[0].y)[-1] == 1.0


def test_hidden_is_not_drawn_and_shown_again_is(front_end, machine, sampler, plot):
    machine.tokens_per_s = 5.0
    _show(front_end, plot)
    machine.advance(sampler)
    _show(front_end, plot, visible=False)
    for _ in range(3):
        machine.advance(sampler)
    assert len(_redraws(front_end, plot)) == 1
    _show(front_end, plot)
    machine.advance(sampler)
    assert len(_redraws(front_end, plot)) == 2
    # What was measured meanwhile is there: five seconds in pieces of two.
    assert sum(value is not None for value in plot.figure.data[0].y) == 3


def test_what_looks_the_same_is_not_drawn_but_every_visible_change_is(front_end, machine, sampler, plot):
    def redraws_after(num_beats):
        before = len(_redraws(front_end, plot))
        for _ in range(num_beats):
            machine.advance(sampler, seconds=2.0)
        return len(_redraws(front_end, plot)) - before

    _show(front_end, plot)
    # A line that grows is drawn until it is as long as the window, two minutes.
    assert redraws_after(60) == 60
    machine.memory_bytes *= 1.0005
    assert redraws_after(5) == 0
    # What was generated moves through the window, and is then gone.
    machine.tokens_per_s = 20.0
    assert redraws_after(1) == 1
    machine.tokens_per_s = 0.0
    assert redraws_after(59) == 59
    assert redraws_after(5) <= 1
    machine.memory_bytes *= 1.5
    assert redraws_after(1) == 1


def test_a_redraw_is_one_update_and_never_faster_than_2_hz(front_end, machine, sampler, plot):
    machine.tokens_per_s = 20.0
    _show(front_end, plot)
    for _ in range(20):
        machine.tokens_per_s += 1.0
        machine.memory_bytes *= 1.1
        machine.advance(sampler, seconds=0.1)
    assert len(_redraws(front_end, plot)) == 4
    # Lines that did not change are not sent.
    assert len(_redraws(front_end, plot)[-1]["_py2js_update"]["style_traces"]) == 2


def test_the_words_follow_the_plot(front_end, machine, sampler, plot):
    _show(front_end, plot)
    machine.advance(sampler)
    assert plot.note.summary.startswith("This process: 1 GB now, at most 1. ")
    assert "Generation: 0 tokens/s now, at most 0." in plot.note.summary


def test_views_are_counted_one_by_one(front_end, plot):
    front_end.tell(plot.note, type="visible", view="a", visible=True)
    front_end.tell(plot.note, type="visible", view="b", visible=True)
    front_end.tell(plot.note, type="visible", view="a", visible=False)
    assert plot.note.is_seen
    front_end.tell(plot.note, type="visible", view="b", visible=False)
    assert not plot.note.is_seen


def test_exactly_one_figure_widget(front_end, plot):
    assert sum(isinstance(child, go.FigureWidget) for child in plot.children) == 1


def test_its_own_sampler_starts_and_ends_with_it(front_end):
    before = set(threading.enumerate())
    plot = LivePlot(statuses=[])
    assert plot.sampler.is_running
    plot.close()
    assert not plot.sampler.is_running
    assert set(threading.enumerate()) <= before


def test_a_lent_sampler_is_left_running(front_end, machine):
    with Sampler([machine], interval_s=60) as sampler:
        LivePlot(statuses=[], sampler=sampler).close()
        assert sampler.is_running


def test_headless_has_a_plain_figure_and_no_big_widget(front_end, sampler, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    plot = LivePlot(statuses=[], sampler=sampler)
    assert type(plot.figure) is go.Figure
    assert list(plot._repr_mimebundle_()) == ["text/plain", "text/html"]
    sampler.beat()
    plot.draw()
    assert list(plot.figure.data[0].y)[-1] == 1.0
    plot.close()


def test_probes_are_for_gpus_that_can_be_used():
    gpu = DeviceInfo(0, "GPU", 8, 8, ("fp16",), "sm_90", 132, "GPU-1")
    statuses = [
        BackendStatus(CUDABackend(), True, None, (gpu, gpu)),
        BackendStatus(CPUBackend(), True, None, (gpu,)),
    ]
    assert [probe.name for probe in gpu_probes(statuses)] == ["cuda:0", "cuda:0"]
    assert gpu_probes([BackendStatus(CUDABackend(), False, "no", ())]) == []


def test_text_has_the_numbers_of_the_run_but_not_in_headless_ones(machine, sampler, plot, monkeypatch):
    what = "memory, by owner, busy, speed, first token, requests, KV pool over the last 120 s"
    assert repr(plot) == f"LivePlot\n  plot  {what}"
    machine.advance(sampler)
    assert plot.twin().rows == (
        ("plot", what),
        ("This process", "1 GB now, at most 1"),
        ("Generation", "0 tokens/s now, at most 0"),
    )
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    assert plot.twin().rows == (("plot", what),)


def test_paused_is_not_drawn_and_goes_on_with_all_that_was_measured(front_end, machine, sampler, plot):
    machine.tokens_per_s = 5.0
    _show(front_end, plot)
    machine.advance(sampler)
    front_end.tell(plot.note, type="pause", paused=True)
    for _ in range(4):
        machine.advance(sampler)
    assert (plot.is_paused, len(_redraws(front_end, plot))) == (True, 1)
    front_end.tell(plot.note, type="pause", paused=False)
    machine.advance(sampler)
    assert len(_redraws(front_end, plot)) == 2


def test_window_and_threshold_follow_the_user_and_nonsense_is_taken_back(front_end, machine, sampler, plot):
    _show(front_end, plot)
    machine.advance(sampler)
    front_end.tell(plot.note, type="window", window_s=300)
    front_end.tell(plot.note, type="threshold", percent=50)
    machine.advance(sampler)
    assert plot.figure.data[0].x[0] == -295.0
    assert plot.note.threshold_percent == 50.0
    wrong = ({"type": "window", "window_s": 7}, {"type": "threshold", "percent": 0}, {"type": "window"})
    for count, content in enumerate(wrong, 1):
        front_end.tell(plot.note, **content)
        refusals = front_end.custom(plot.note)
        assert (len(refusals), refusals[-1]["type"]) == (count, "refused")
        assert "must be" in refusals[-1]["cause"]
        assert (plot.note.window_s, plot.note.threshold_percent) == (300.0, 50.0)


def test_an_emptied_threshold_takes_its_line_away(front_end, machine, sampler):
    machine_memory = DeviceInfo(0, "CPU", 8_000_000_000, 8_000_000_000, ("fp32",), "x86_64", 2)
    statuses = [BackendStatus(CPUBackend(), True, None, (machine_memory,))]
    plot = LivePlot(statuses=statuses, sampler=sampler, threshold_percent=50)
    _show(front_end, plot)
    machine.advance(sampler)
    assert len(plot.figure.layout.shapes) > 0
    front_end.tell(plot.note, type="threshold", percent=None)
    machine.advance(sampler)
    assert len(plot.figure.layout.shapes) == 0
    # So that the page takes it away, too.
    assert _redraws(front_end, plot)[-1]["_py2js_update"]["layout_data"]["shapes"] == []
    plot.close()


def test_a_paused_picture_stands_still_and_follows_its_controls(front_end, machine, sampler, plot):
    _show(front_end, plot)
    machine.advance(sampler)
    front_end.tell(plot.note, type="pause", paused=True)
    machine.memory_bytes = 5e9
    for _ in range(3):
        machine.advance(sampler, seconds=30.0)
    front_end.tell(plot.note, type="window", window_s=300)
    for _ in range(2):
        machine.advance(sampler)
    assert len(_redraws(front_end, plot)) == 2
    assert plot.figure.data[0].x[0] == -295.0
    assert [value for value in plot.figure.data[0].y if value is not None] == [1.0]
    front_end.tell(plot.note, type="pause", paused=False)
    machine.advance(sampler)
    assert list(plot.figure.data[0].y)[-1] == 5.0


def test_every_redraw_is_under_12_kb(front_end, machine, sampler, plot):
    machine.tokens_per_s = 123.456789
    _show(front_end, plot)
    for _ in range(130):
        machine.memory_bytes += 1234567
        machine.advance(sampler)
    sizes = [len(json.dumps(update)) for update in front_end.updates(plot.figure)]
    assert len(sizes) >= 130
    assert max(sizes) < 12_000


@pytest.mark.parametrize(
    ("kind", "shown"),
    [(MemoryMonitor, "memory, by owner, busy"), (ThroughputMonitor, "speed, first token, requests, KV pool")],
)
def test_each_monitor_alone(front_end, sampler, kind, shown):
    monitor = kind(statuses=[], sampler=sampler)
    assert repr(monitor) == f"{kind.__name__}\n  plot  {shown} over the last 120 s"
    monitor.close()
    assert front_end.opened() == front_end.closed()


def test_the_figure_is_whole_when_it_is_opened(front_end, plot):
    state = front_end.opening(plot.figure)
    assert state["_widget_layout"]["height"] > 100
    assert len(state["_widget_data"]) == len(plot.figure.data)
    assert state["_config"]["displayModeBar"] is False


def test_a_page_that_draws_gets_the_figure_as_it_stands_and_only_then_updates(front_end, machine, sampler, plot):
    _show(front_end, plot)
    machine.advance(sampler)
    # A reloaded page begins anew.
    front_end.tell(plot.figure, type="drawing")
    current = next(update for update in reversed(front_end.updates(plot.figure)) if "_widget_data" in update)
    assert current["_widget_data"][0]["y"][-1] == 1.0
    assert front_end.custom(plot.figure) == [{"type": "current"}]
    num_redraws = len(_redraws(front_end, plot))
    machine.advance(sampler, seconds=10.0)
    assert len(_redraws(front_end, plot)) == num_redraws
    front_end.tell(plot.figure, type="drawn")
    machine.advance(sampler)
    assert len(_redraws(front_end, plot)) == num_redraws + 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "x"}, "'x' is neither a LlamaGPU nor a Session: give a loaded model"),
        ({"window_s": -5}, "window_s=-5: must be a number of seconds from 1"),
        ({"window_s": float("nan")}, "window_s=nan"),
        ({"threshold_percent": 500}, "threshold_percent=500: must be a number from 1 to 100"),
        ({"threshold_percent": "90"}, "threshold_percent='90'"),
    ],
)
def test_what_cannot_be_plotted_is_refused_in_words_and_leaves_nothing(front_end, recwarn, settings, words):
    with pytest.raises(ConfigError, match=words):
        MemoryMonitor(statuses=[], **settings)
    gc.collect()
    assert not [warning for warning in recwarn if "unraisable" in str(warning.category).lower()]
    assert not front_end.opened()
