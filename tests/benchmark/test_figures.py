"""Spreads, ratios and the forms of a report."""

from __future__ import annotations

import csv
import io

import pytest

from workbench.benchmark import EngineChoice, EngineFigures, Report, Spread, Workload, report_page
from workbench.benchmark.formats import as_csv, as_text
from workbench.benchmark.gpu_meter import GPUMeter, used_bytes_by_gpu
from workbench.benchmark.spread import percentile
from workbench.errors import ConfigError


@pytest.fixture
def report() -> Report:
    ours = EngineFigures(
        EngineChoice("workbench", "cpu"),
        "bf16",
        {"ttft_ms": Spread(10.0, 9.0, 12.0), "decode_tokens_per_s": Spread(120.0, 100.0, 130.0)},
    )
    peer = EngineFigures(
        EngineChoice("transformers", "cpu"),
        "bf16",
        {"ttft_ms": Spread(20.0, 20.0, 20.0), "decode_tokens_per_s": Spread(40.0, 40.0, 40.0)},
    )
    absent = EngineFigures(EngineChoice("vllm", "cpu"), error="ModuleNotFoundError: No module named 'vllm' & <more>")
    return Report("tiny", Workload(), {"date": "2026-01-01"}, (ours, peer, absent))


def test_a_spread_is_the_middle_the_least_and_the_most() -> None:
    assert Spread.of([3.0, None, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([None]) is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 1) == 7.0
    assert percentile([], 50) is None


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"runs": 0}, {"new_tokens": 1.5}, {"warmup_runs": -1}])
def test_a_workload_of_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Workload(**wrong)


def test_prompts_are_new_each_time_and_the_same_for_everybody() -> None:
    workload = Workload(batch_size=2, prompt_tokens=20)
    once, again, other = (workload.prompts(seed, 256) for seed in (1, 1, 2))
    assert once == again != other
    assert [len(prompt) for prompt in once] == [20, 20]
    assert all(100 <= token < 256 for prompt in once for token in prompt)
    assert all(0 <= token < 8 for prompt in workload.prompts(1, 8) for token in prompt)


def test_ratios_say_how_many_times_better_ours_is(report: Report) -> None:
    ours, peer, absent = report.engines
    assert report.ratio(peer, "ttft_ms") == 2.0
    assert report.ratio(peer, "decode_tokens_per_s") == 3.0
    assert report.ratio(ours, "ttft_ms") is None
    assert report.ratio(absent, "ttft_ms") is None


def test_text_has_every_figure_and_why_one_is_missing(report: Report) -> None:
    text = as_text(report)
    assert "10 ms  (9 to 12)" in text
    assert "ours 3.00 times better" in text
    assert "unavailable: ModuleNotFoundError" in text


def test_csv_is_a_line_a_figure(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [(row["engine"], row["figure"]) for row in rows] == [
        ("workbench", "ttft_ms"),
        ("workbench", "decode_tokens_per_s"),
        ("transformers", "ttft_ms"),
        ("transformers", "decode_tokens_per_s"),
        ("vllm", ""),
    ]
    assert float(rows[3]["ours_better_by"]) == 3.0
    assert rows[4]["error"].startswith("ModuleNotFoundError")


def test_the_page_needs_no_network_and_shows_names_as_text(report: Report) -> None:
    page = report_page(report)
    assert "Plotly.newPlot" in page and len(page) > 1_000_000
    assert "<script src" not in page and 'src="http' not in page and "<link" not in page
    assert "&lt;more&gt;" in page and "<more>" not in page.split("<p>")[-1]


class _Driver:
    """A pynvml with one card that has used 5 J."""

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        assert uuid == "GPU-a"
        return 0

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return "GPU-a"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return type("Memory", (), {"used": 2048})

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return 5000


def test_energy_and_memory_are_the_drivers() -> None:
    meter = GPUMeter("a", _Driver())
    assert (meter.joules(), meter.used_bytes()) == (5.0, 2048)
    assert used_bytes_by_gpu(_Driver()) == {"GPU-a": 2048}


def test_without_the_card_nothing_is_said() -> None:
    assert GPUMeter(None).joules() is None
    assert GPUMeter("b", _Driver()).used_bytes() is None
