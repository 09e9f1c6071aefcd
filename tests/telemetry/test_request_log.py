import pytest

from workbench.errors import ConfigError
from workbench.telemetry import RequestLog
from workbench.telemetry.tracing import trace_requests


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return RequestLog(3, clock=clock, wall_clock=lambda: 1000.0 + clock.now_s)


def _run(log, clock, name="a", seconds=2.0, **counts):
    log.begin(name)
    first = clock.now_s + 0.5
    clock.now_s += seconds
    counts = {"num_prompt_tokens": 10, "num_generated_tokens": 4, **counts}
    log.end(name, 0, finish_reason="length", started_s=clock.now_s - seconds + 0.1, first_token_s=first, **counts)


def test_a_row_says_how_long_and_how_fast(log, clock):
    _run(log, clock)
    (row,) = log.rows
    assert row.total_s == 2.0
    assert row.queue_s == pytest.approx(0.1)
    assert row.ttft_s == 0.5
    assert row.decode_tokens_per_s == pytest.approx(3 / 1.5)
    assert row.seconds_per_token == pytest.approx(0.5)
    assert row.submitted_at == 1100.0
    assert row.mean_in_flight == 1.0


def test_the_mean_in_flight_counts_neighbours_by_time(log, clock):
    log.begin("long")
    clock.now_s += 1.0
    _run(log, clock, "short", 1.0)
    clock.now_s += 2.0
    log.end("long", 0, finish_reason="stop")
    short, long = log.rows
    assert short.mean_in_flight == 2.0
    assert long.mean_in_flight == pytest.approx((1 + 2 + 1 + 1) / 4)
    assert log.num_in_flight == 0


def test_several_answers_of_one_request_are_rows_of_their_own(log, clock):
    log.begin("a", 2)
    clock.now_s += 1.0
    log.end("a", 1, finish_reason="stop", is_last=False)
    clock.now_s += 1.0
    log.end("a", 0, finish_reason="error", error="gone")
    assert [(row.index, row.total_s, row.error) for row in log.rows] == [(1, 1.0, None), (0, 2.0, "gone")]


def test_only_the_newest_are_kept_and_all_are_counted(log, clock):
    for number in range(5):
        _run(log, clock, str(number))
    assert [row.request_id for row in log.rows] == ["2", "3", "4"]
    assert log.histograms["ttft_s"].count == 5
    assert log.histograms["num_generated_tokens"].mean == 4


def test_rows_become_a_dataframe_also_when_there_are_none(log, clock):
    assert list(log.to_dataframe().columns)[:2] == ["request_id", "index"]
    _run(log, clock)
    frame = log.to_dataframe()
    assert frame.loc[0, "num_prompt_tokens"] == 10
    assert frame.loc[0, "submitted_at"].year == 1970


def test_an_observer_that_fails_keeps_nobody_from_the_row(log, clock, caplog):
    seen = []
    log.observe(lambda row: 1 / 0)
    forget = log.observe(seen.append)
    _run(log, clock)
    forget()
    _run(log, clock)
    assert len(seen) == 1
    assert len(log.rows) == 2
    assert "observer" in caplog.text


def test_an_end_without_a_beginning_is_no_row(log):
    log.end("never", 0, finish_reason="stop")
    assert log.rows == ()


def test_spans_have_the_times_and_counts_of_the_row(log, clock):
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = export.InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = trace_requests(log, model="tiny", tracer=provider.get_tracer("test"))
    _run(log, clock)
    stop()
    _run(log, clock)
    (span,) = exporter.get_finished_spans()
    assert span.name == "text_completion tiny"
    assert span.end_time - span.start_time == 2_000_000_000
    assert span.attributes["gen_ai.usage.output_tokens"] == 4
    assert [event.name for event in span.events] == ["started", "first_token"]


def test_without_opentelemetry_the_error_says_what_to_install(log, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"opentelemetry-sdk"):
        trace_requests(log)
