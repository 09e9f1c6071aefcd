import gzip
import json

import pytest

from workbench.errors import ConfigError
from workbench.telemetry import OperationRow, StepProfile, StepSplit
from workbench.telemetry.flame_graph import flame_graph_html

STEP = StepSplit(0.001, 0.002, 0.01, 0.003, 0.001, 0.0, num_tokens=4, num_decodes=4)
FULL = StepProfile(
    (STEP, STEP),
    (OperationRow("aten::mm", 10, 0.02, 0.02, "cpu"),),
    {("launch",): 0.001, ("launch", "aten::linear", "aten::mm"): 0.02},
    gzip.compress(b'{"traceEvents": []}'),
)


def test_the_split_adds_up():
    assert STEP.total == pytest.approx(0.017)
    assert FULL.totals()["forward"] == pytest.approx(0.02)
    assert list(FULL.to_dataframe()["num_tokens"]) == [4, 4]
    assert json.loads(json.dumps(FULL.to_dict()))["num_steps"] == 2


def test_it_reads_as_text_and_html():
    assert "forward" in str(FULL) and "aten::mm" in str(FULL)
    assert "<table>" in FULL._repr_html_()


def test_trace_and_flame_graph_are_files(tmp_path):
    trace = FULL.save_trace(tmp_path / "trace.json")
    assert json.loads(trace.read_text()) == {"traceEvents": []}
    assert gzip.decompress(FULL.save_trace(tmp_path / "trace.json.gz").read_bytes()) == trace.read_bytes()
    page = FULL.save_flame_graph(tmp_path / "flame.html").read_text()
    assert "aten::mm: 20.00 ms" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_profile_of_the_split_alone_has_neither(tmp_path):
    for save in (StepProfile((STEP,)).save_trace, StepProfile((STEP,)).save_flame_graph):
        with pytest.raises(ConfigError, match="operations=True"):
            save(tmp_path / "x")


def test_bars_lie_below_their_caller_and_names_are_escaped():
    page = flame_graph_html({("a",): 1.0, ("a", "<b>"): 1.0, ("c",): 6.0}, "t")
    assert 'title="&lt;b&gt;: 1,000.00 ms, 12.5%" data-from="0.750000"' in page
    assert "<b>" not in page
