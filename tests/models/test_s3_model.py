"""Models in S3 by their url: fetched once, again when they change, and used from the cache when S3 is away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from workbench.aws import upload_s3
from workbench.cli import main
from workbench.errors import ConfigError, DownloadError, ModelNotFoundError
from workbench.llm import LlamaGPU
from workbench.models import Catalogue, parse_source
from workbench.models.s3_model import fetch_s3
from workbench.progress import Progress, no_progress

URL = "s3://models/team/tiny"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> Iterator[object]:
    """A bucket with the tiny model."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", "t"), ("SECRET_ACCESS_KEY", "t"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        client = boto3.client("s3", "us-east-1")
        client.create_bucket(Bucket="models")
        upload_s3(tiny_model_folder, URL, client=client)
        yield client


def test_a_url_is_a_source() -> None:
    source = parse_source("s3://models/team/tiny")
    assert (source.kind, source.location, source.text) == ("s3", "models/team/tiny", URL)


def test_a_model_in_s3_is_loaded_and_listed_and_removed(s3: object, tiny_model_folder: Path) -> None:
    heard: list[Progress] = []
    with LlamaGPU(URL, prefer_gpu=False, auto_detect_aws=False, progress=heard.append) as llm:
        assert llm.model_name == "tiny"
        assert len(llm.submit([1, 2], max_tokens=2).result().token_ids) == 2
    assert {"download", "check"} <= {progress.stage for progress in heard}
    (entry,) = [entry for entry in Catalogue().list() if entry.kind == "s3"]
    assert (entry.name, entry.ready) == (URL, True)
    weights = (tiny_model_folder / "model.safetensors").read_bytes()
    assert (entry.path / "model.safetensors").read_bytes() == weights
    assert Catalogue().remove(URL) > len(weights)
    assert not [entry for entry in Catalogue().list() if entry.kind == "s3"]


def test_a_model_goes_there_quantised_and_is_loaded_from_there(s3: object, tiny_model_folder: Path, capsys) -> None:
    url = "s3://models/team/small"
    assert main(["quantize", str(tiny_model_folder), "--type", "int8", "--out", url]) == 0
    assert url in capsys.readouterr().out
    with LlamaGPU(url, prefer_gpu=False, auto_detect_aws=False) as llm:
        assert llm.quantization.quantization_type.value == "int8"
        from_there = llm.submit([1, 2], max_tokens=4).result().token_ids
    with LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False, quant_type="int8") as llm:
        assert llm.submit([1, 2], max_tokens=4).result().token_ids == from_there


def test_it_is_fetched_once_and_again_when_it_changed(s3) -> None:
    first = fetch_s3("models/team/tiny", no_progress, client=s3)
    made = (first / "config.json").stat().st_mtime_ns
    assert fetch_s3("models/team/tiny", no_progress, client=s3) == first
    assert (first / "config.json").stat().st_mtime_ns == made
    s3.put_object(Bucket="models", Key="team/tiny/notes.txt", Body=b"new")
    assert (fetch_s3("models/team/tiny", no_progress, client=s3) / "notes.txt").read_bytes() == b"new"


def test_without_s3_what_is_here_is_used(s3) -> None:
    here = fetch_s3("models/team/tiny", no_progress, client=s3)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = boto3.client("s3", "us-east-1", endpoint_url=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        away.meta.events.register("before-send.s3", _fail)
        assert fetch_s3("models/team/tiny", no_progress, client=away) == here
        with pytest.raises(DownloadError):
            fetch_s3("models/other", no_progress, client=away)


def _fail(**_: object) -> None:
    from botocore.exceptions import EndpointConnectionError

    raise EndpointConnectionError(endpoint_url="nowhere")


def test_what_is_not_there(s3) -> None:
    with pytest.raises(ModelNotFoundError, match="nothing lies there"):
        fetch_s3("models/nothing", no_progress, client=s3)
    with pytest.raises(ConfigError, match="cannot be a bucket"):
        Catalogue().resolve("s3://B/x")
    with pytest.raises(ModelNotFoundError, match="nothing is cached"):
        Catalogue().remove("s3://models/never")
