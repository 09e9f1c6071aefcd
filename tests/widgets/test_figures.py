import json

from widgets.chart_rows import ChartLine, ChartRow, memory_rows, owners_row, throughput_rows, utilisation_row
from widgets.figures import live_figure, live_layout, live_over, live_summary, live_updates, live_view
from workbench.backends import BackendStatus, CPUBackend, CUDABackend, DeviceInfo
from workbench.telemetry import Series

_ROWS = (
    ChartRow("memory", "GB", (ChartLine("used_bytes", "Used", 1e9),), limit=2.0),
    ChartRow("speed", "tokens/s", (ChartLine("rate", "Generation"), ChartLine("prompt", "Prompt"))),
)


def _series(values, step_s=1.0):
    series = Series(1000)
    for index, value in enumerate(values):
        series.append(index * step_s, value)
    return series


def _view(window_s=60.0, now_s=59.0, **series):
    return live_view(series, _ROWS, now_s, window_s)


def _gpus(count):
    devices = tuple(DeviceInfo(i, "GPU", 80_000_000_000, 1, ("bf16",), "sm_90", 1) for i in range(count))
    cpu = DeviceInfo(0, "CPU", 64_000_000_000, 1, ("fp32",), "x86_64", 8)
    return [BackendStatus(CUDABackend(), True, None, devices), BackendStatus(CPUBackend(), True, None, (cpu,))]


def test_values_are_scaled_and_on_one_grid():
    view = _view(used_bytes=_series([1e9] * 59 + [1.5e9]), rate=_series([10.0] * 60))
    assert len(view.times_s) == 60
    assert view.times_s[0] == -59.0 and view.times_s[-1] == 0.0
    assert view.values[0][0][-1] == 1.5
    assert set(view.values[1][0]) == {10.0}
    assert set(view.values[1][1]) == {None}


def test_a_piece_of_time_shows_its_highest_value():
    view = _view(window_s=600.0, now_s=599.0, rate=_series([5.0] * 300 + [50.0] + [5.0] * 299))
    assert 50.0 in view.values[1][0]


def test_one_late_beat_leaves_no_gap_and_a_real_pause_does():
    series = Series(1000)
    for time_s in (1.0, 2.0, 4.0, 5.0, 9.0):
        series.append(time_s, 7.0)
    values = _view(now_s=9.0, rate=series).values[1][0]
    assert values[-9:] == (7.0, 7.0, 7.0, 7.0, 7.0, None, None, None, 7.0)


def test_areas_go_on_into_the_piece_that_has_just_begun():
    row = ChartRow("by owner", "GB", (ChartLine("used_bytes", "Used", 1e9),), is_stacked=True)
    for last_s, expected in ((58.0, (1.0, 1.0, 1.0)), (57.0, (1.0, None, None))):
        series = Series(1000)
        for time_s in range(int(last_s) + 1):
            series.append(float(time_s), 1e9)
        assert live_view({"used_bytes": series}, [row], 59.0, 60.0).values[0][0][-3:] == expected


def test_an_update_is_small_also_with_eight_gpus():
    statuses = _gpus(8)
    rows = (*memory_rows(statuses), utilisation_row(statuses), *throughput_rows())
    series = {line.series: _series([12.345678 * line.scale] * 900) for row in rows for line in row.lines}
    updates = live_updates(live_view(series, rows, 899.0, 900.0))
    assert len(json.dumps(updates)) < 12_000


def test_updates_are_in_the_order_of_the_figures_traces():
    view = _view(used_bytes=_series([1e9]))
    figure = live_figure(view)
    assert [trace.name for trace in figure.data] == ["Used", "Generation", "Prompt"]
    assert [tuple(trace.y) for trace in figure.data] == [update["y"] for update in live_updates(view)]


def test_no_two_series_of_the_legend_look_alike_without_colour():
    rows = (*memory_rows(_gpus(2)), owners_row(_gpus(2)), utilisation_row(_gpus(2)), *throughput_rows())
    traces = [trace for trace in live_figure(live_view({}, rows, 59.0, 60.0)).data if trace.showlegend]
    looks = [(trace.stackgroup, trace.line.dash, trace.fillpattern.shape) for trace in traces]
    assert len(looks) == len(set(looks)) == 17


def test_rows_of_a_machine():
    titles = [row.title for row in memory_rows(_gpus(2))]
    assert titles == ["memory", "memory of cuda:0", "memory of cuda:1"]
    assert memory_rows(_gpus(1))[1].limit == 80.0
    assert [line.series for line in utilisation_row(_gpus(1)).lines] == ["cpu_busy_percent", "cuda:0_busy_percent"]


def test_the_threshold_is_a_line_in_memory_rows_and_said_in_words():
    view = _view(used_bytes=_series([1.9e9] * 60))
    (line,) = live_layout(view, 0.9)["shapes"]
    assert (line["y0"], line["yref"]) == (1.8, "y")
    assert live_layout(view, None)["shapes"] == []
    assert live_over(view, 0.9) == ["memory: 1.9 of 2.0 GB is above 90%"]
    assert live_over(view, 0.99) == []


def test_the_summary_says_it_in_words():
    view = _view(used_bytes=_series([1.5e9] * 59 + [1.25e9]), rate=_series([20.0] * 60))
    assert live_summary(view) == (
        "Used: 1.25 GB now, at most 1.5. Generation: 20 tokens/s now, at most 20. Prompt: no values yet."
    )
