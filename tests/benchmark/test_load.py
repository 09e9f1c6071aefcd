"""A load on a real endpoint, and what is said where there is none."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import LlamaGPU
from workbench.benchmark import Load, load_page, run_load
from workbench.benchmark.load import arrivals_s
from workbench.cli import main
from workbench.errors import ConfigError, DownloadError
from workbench.server import Endpoint


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with LlamaGPU("random:tiny", backend="cpu", context_length=512) as llm, llm.serve(port=0) as endpoint:
        yield endpoint


def test_gaps_between_arrivals_are_exponential() -> None:
    moments = arrivals_s(Load(rate=4.0, requests=4000, seed=1))
    gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    assert moments[0] == 0.0 and moments == arrivals_s(Load(rate=4.0, requests=4000, seed=1))
    assert statistics.fmean(gaps) == pytest.approx(1 / 4, rel=0.1)
    # Mean and deviation of an exponential are the same; of steady arrivals the deviation would be 0.
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)


def test_every_request_is_answered_and_counted(endpoint: Endpoint) -> None:
    load = Load(rate=50.0, requests=6, prompt_tokens=24, new_tokens=5, ignore_eos=True)
    report = run_load(endpoint.url, load, api_key=endpoint.api_key)
    totals = report.totals()
    assert (totals["requests"], totals["failed"], totals["new_tokens"]) == (6, 0, 30)
    assert all(one.late_s >= 0 and one.prompt_tokens > 10 for one in report.answers)
    known = report.percentiles()
    assert known["ttft_ms"]["p50"] <= known["ttft_ms"]["p99"] <= known["total_ms"]["p100"]
    page = load_page(report)
    assert "Plotly.newPlot" in page and "<script src" not in page


def test_a_refused_request_is_an_answer_with_its_status(endpoint: Endpoint) -> None:
    report = run_load(endpoint.url, Load(rate=50.0, requests=2), model="absent", api_key="wrong")
    assert report.totals()["failed"] == 2
    (error,) = report.errors()
    assert error.startswith("status 401")
    assert "2 times: status 401" in report.as_text()


def test_the_command_prints_each_form(endpoint: Endpoint, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "load.html"
    words = ["--url", endpoint.url, "--api-key", endpoint.api_key, "--rate", "50", "--requests", "2"]
    words = ["bench", *words, "--new-tokens", "3", "--prompt-tokens", "8"]
    assert main([*words, "--output-format", "json", "--page", str(page)]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["failed"] == 0
    assert page.stat().st_size > 1_000_000
    assert main([*words, "--output-format", "csv"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 2
    assert main(words) == 0
    assert "first token, ms" in capsys.readouterr().out


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", "http://127.0.0.1:9", "--requests", "1"]) == 1
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:9/v1/models")


def test_a_load_of_nothing_and_other_addresses_are_refused() -> None:
    with pytest.raises(ConfigError, match="rate=0"):
        Load(rate=0)
    with pytest.raises(ConfigError, match="http://"):
        run_load("localhost:8000", Load(rate=1.0))
    with pytest.raises(DownloadError):
        run_load("http://127.0.0.1:9/v1", Load(rate=1.0, requests=1))
