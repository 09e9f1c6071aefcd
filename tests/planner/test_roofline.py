import pytest

from workbench import plan
from workbench.planner import DeviceRates, measure
from workbench.planner.figure import roofline_figure
from workbench.planner.machine_file import MachineFile
from workbench.planner.result import RooflinePoint
from workbench.planner.roofline import known_rates
from workbench.planner.target import host_target


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("measured")
        patch.setenv("WORKBENCH_HOME", str(home))
        return home, measure("cpu")


def test_the_processor_is_measured_and_remembered(measured, monkeypatch):
    home, rates = measured
    assert set(rates) == {"cpu"}
    assert rates["cpu"].is_measured
    assert rates["cpu"].read_bytes_per_s > 1e8
    assert set(rates["cpu"].flops) == {"fp32", "bf16", "fp16"}
    assert all(flops > 1e7 for flops in rates["cpu"].flops.values())
    assert 1e-8 < rates["cpu"].launch_s < 1e-2
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    assert known_rates(host_target()) == rates["cpu"]
    assert plan("random:tiny", backend="cpu").speed.rates == rates["cpu"]


@pytest.mark.parametrize("damage", [{"versions": {}}, {"launch_s": 0}, {"flops": {}}, {"read_bytes_per_s": None}])
def test_what_was_measured_under_other_versions_or_is_damaged_does_not_count(measured, monkeypatch, damage):
    home, _ = measured
    content = MachineFile("rooflines.json")
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    kept = content.read()
    try:
        content.update(lambda entries: {key: {**entry, **damage} for key, entry in entries.items()})
        assert not known_rates(host_target()).is_measured
    finally:
        content.update(lambda entries: kept)


def test_the_figure_has_the_roof_and_a_marker_a_step():
    rates = DeviceRates(1e12, {"bf16": 1e14}, 1e-6, "measured here", True)
    points = [RooflinePoint("one request", 2e9, 1e9, 0.002), RooflinePoint("prompt", 1e13, 1e10, 0.2)]
    figure = roofline_figure(rates, "bf16", points, title="GPU")
    roof, one, prompt = figure.data
    assert (roof.x[1], roof.y[1]) == (100.0, 1e14)
    assert roof.y[0] == pytest.approx(roof.x[0] * 1e12)
    assert (one.x[0], one.y[0]) == (2.0, 1e12)
    assert one.marker.symbol != prompt.marker.symbol
    assert figure.layout.xaxis.type == "log"


def test_a_plan_shows_its_own_steps():
    figure = plan("random:tiny", backend="cpu", batch=4, context=256).roofline()
    assert [trace.name for trace in figure.data][1:] == ["one request", "batch of 4", "prompt of 256"]
