import json

from widgets.figures import live_figure, live_lines, live_range, live_summary, live_updates, live_view
from workbench.telemetry import Series


def _series(*points):
    series = Series(100)
    for time_s, value in points:
        series.append(time_s, value)
    return series


def _view(window_s=60.0):
    series = {
        "process_memory_bytes": _series((0.0, 9e9), (95.0, 1.5e9), (100.0, 1.25e9)),
        "generated_tokens_per_s": _series((95.0, 10.0), (100.0, 20.0)),
    }
    return live_view(series, live_lines(["cuda:0"]), now_s=100.0, window_s=window_s)


def test_the_view_is_the_window_in_its_units_counted_back_from_now():
    memory, device, rate = _view().points
    assert memory.times_s == (-5.0, 0.0)
    assert memory.values == (1.5, 1.25)
    assert device.values == ()
    assert rate.values == (10.0, 20.0)


def test_the_figure_has_a_trace_a_line_memory_above_rate():
    figure = live_figure(_view(), 60.0)
    assert [trace.name for trace in figure.data] == ["This process", "cuda:0, in use", "Generation"]
    assert [trace.yaxis for trace in figure.data] == ["y", "y", "y2"]
    assert list(figure.data[2].y) == [10.0, 20.0]
    # Lines in one plot differ in more than colour.
    assert figure.data[0].line.dash != figure.data[1].line.dash
    assert figure.layout.showlegend


def test_one_line_a_plot_needs_no_legend():
    figure = live_figure(live_view({}, live_lines(), 0.0, 60.0), 60.0)
    assert not figure.layout.showlegend
    assert (figure.layout.yaxis.title.text, figure.layout.yaxis2.title.text) == ("memory, GB", "tokens/s")


def test_it_takes_the_colours_of_the_page():
    layout = live_figure(_view(), 60.0).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_an_update_of_a_full_window_is_small():
    memory, rate = Series(300), Series(300)
    for second in range(300):
        memory.append(float(second), 1.23456789e9 + second * 1e6)
        rate.append(float(second), 23.456789 + second / 7)
    series = {"process_memory_bytes": memory, "generated_tokens_per_s": rate, "cuda:0_used_bytes": memory}
    view = live_view(series, live_lines(["cuda:0"]), now_s=299.0, window_s=120.0)
    assert len(json.dumps(live_updates(view))) < 12_000


def test_the_time_axis_grows_with_the_data_up_to_the_window():
    assert live_range(live_view({}, live_lines(), 0.0, 120.0), 120.0) == [-30.0, 0.0]
    assert live_range(_view(window_s=1000.0), 1000.0) == [-100.0, 0.0]
    assert live_range(_view(window_s=99.0), 50.0) == [-30.0, 0.0]


def test_the_summary_says_it_in_words():
    assert live_summary(_view()) == (
        "This process: 1.25 GB now, at most 1.50. cuda:0, in use: no values yet. "
        "Generation: 20.0 tokens/s now, at most 20.0."
    )
