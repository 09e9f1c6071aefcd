import csv
import io
from datetime import UTC, datetime

import pytest
from fake_llm import FakeFactory

from workbench.errors import ConfigError, ModelNotFoundError
from workbench.parallel import GPUConfig
from workbench.run_log import RunLog
from workbench.session import LoadChoice, Session


@pytest.fixture
def log():
    log = RunLog(now=lambda: datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    log.add("reply", "m", "stop", tokens_per_s=10.0, seed=1, settings="temperature=0.5 top_k=3", versions="torch=2")
    log.add("reply", "m", "length", tokens_per_s=12.0, seed=1, settings="temperature=0.7", versions="torch=2")
    return log


def test_one_row_a_run(log):
    frame = log.to_frame()
    assert list(frame.index) == [1, 2]
    assert frame.loc[1, "at"] == "2026-01-02T03:04:05+00:00"
    assert frame.loc[2, "tokens_per_s"] == 12.0


def test_whole_numbers_stay_whole_where_some_are_missing(log):
    seed = 50_693_481_934_776_557
    log.add("reply", "m", "stop", seed=seed, generated_tokens=None)
    log.add("load", "m", "ready")
    frame = log.to_frame()
    assert frame["seed"].tolist()[:3] == [1, 1, seed]
    assert str(frame["seed"].dtype) == "Int64"
    log.add("reply", "m", "stop", seed=2**64 - 1)
    assert log.to_frame()["seed"].iloc[-1] == 2**64 - 1
    assert len(RunLog().to_frame()) == 0


def test_two_runs_are_compared_setting_by_setting(log):
    assert log.differences(1, 2) == [
        ("outcome", "stop", "length"),
        ("tokens_per_s", 10.0, 12.0),
        ("temperature", "0.5", "0.7"),
        ("top_k", "3", None),
    ]
    assert list(log.diff(1, 2).index) == ["outcome", "tokens_per_s", "temperature", "top_k"]
    with pytest.raises(ConfigError, match="there is no run 9; there are 2"):
        log.diff(1, 9)


def test_csv_holds_every_field(log, tmp_path):
    text = log.to_csv(tmp_path / "runs.csv")
    assert (tmp_path / "runs.csv").read_text() == text.replace("\r\n", "\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["number"], row["settings"]) for row in rows] == [
        ("1", "temperature=0.5 top_k=3"),
        ("2", "temperature=0.7"),
    ]


def test_csv_goes_to_s3(log):
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    with moto.mock_aws():
        client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
        client.create_bucket(Bucket="runs")
        assert log.to_s3("s3://runs/team/", client=client) == "s3://runs/team/runs.csv"
        body = client.get_object(Bucket="runs", Key="team/runs.csv")["Body"].read().decode()
    assert body == log.to_csv()


def test_loads_of_a_session_are_noted_with_their_outcome():
    factory, log = FakeFactory(), RunLog()
    with Session(factory) as session:
        log.watch(session, lambda: {"predicted_bytes": 600_000_000})
        session.load(LoadChoice("a", "cpu", "bf16"))
        session.wait(20)
        factory.load_error = ModelNotFoundError("no")
        session.load(LoadChoice("b"))
        session.wait(20)
    first, second = log.runs
    assert (first.kind, first.model, first.outcome, first.precision) == ("load", "a", "ready", "bf16")
    assert (first.predicted_bytes, first.measured_bytes) == (600_000_000, 500_000_000)
    assert "torch=" in first.versions
    assert (second.model, second.outcome, second.measured_bytes) == ("b", "ModelNotFoundError", None)


def test_two_loads_differ_in_how_they_were_configured():
    log = RunLog()
    with Session(FakeFactory()) as session:
        log.watch(session)
        for choice in (
            LoadChoice("a", "cpu", "fp32", 512),
            LoadChoice("a", "cpu", "fp32", 512, parallel=GPUConfig([0, 1], "data", load_balancing="adaptive")),
            LoadChoice("a", "cpu", "fp32", 512, (1,), "fp8", 4, "vllm"),
        ):
            session.load(choice)
            session.wait(20)

    def differences(first, second):
        return {row[0]: row[1:] for row in log.differences(first, second) if row[0] != "seconds"}

    assert differences(1, 2) == {
        "parallel": (None, "data=2"),
        "gpus": (None, "0,1"),
        "load_balancing": (None, "adaptive"),
    }
    assert differences(1, 3) == {
        "engine": ("paged", "vllm"),
        "kv_dtype": (None, "fp8"),
        "cpu_offload_layers": (None, "4"),
        "gpus": (None, "1"),
    }
