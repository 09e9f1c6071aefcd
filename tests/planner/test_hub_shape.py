"""Hub models are planned from config and headers; nothing else is fetched, and a second plan needs no hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_hub import FakeHub
from model_folders import save_preset

from workbench import plan
from workbench.errors import DownloadError, ModelNotFoundError


@pytest.fixture(scope="module")
def sharded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preset("tiny", tmp_path_factory.mktemp("sharded") / "model", shard_size="200KB")


@pytest.fixture
def hub(tiny_model_folder: Path, sharded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # Read when huggingface_hub is imported, which may have happened in this process before.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repos = {"org/tiny": tiny_model_folder, "org/sharded": sharded_folder}
    with FakeHub(repos, gated=frozenset({"org/gated"})) as hub:
        hub.repos["org/gated"] = tiny_model_folder
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.mark.parametrize("name", ["org/tiny", "org/sharded", "org/tiny@main"])
def test_a_hub_model_is_planned_by_its_headers(hub: FakeHub, name: str, tiny_model_folder: Path) -> None:
    made = plan(name, backend="cpu", quant="bf16")
    assert made.devices[0].parts == plan(tiny_model_folder, backend="cpu", quant="bf16").devices[0].parts
    assert "headers" in made.evidence
    fetched = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET")}
    assert not any(name.startswith("tokenizer") for name in fetched)


def test_the_second_plan_asks_nobody(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan("org/sharded", backend="cpu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert plan("org/sharded", backend="cpu").devices[0].parts == first.devices[0].parts
    assert hub.requests == []


def test_offline_a_cached_config_is_enough(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded_folder: Path
) -> None:
    snapshot = tmp_path / "hub" / "models--org--cached" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    refs = tmp_path / "hub" / "models--org--cached" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    shutil.copy(sharded_folder / "config.json", snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = plan("org/cached", backend="cpu", quant="fp32")
    index = json.loads((sharded_folder / "model.safetensors.index.json").read_text())
    assert made.devices[0].parts.weights == index["metadata"]["total_size"]
    assert made.evidence == "its config"


def test_offline_and_unknown_says_what_to_do(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="offline.*connect"):
        plan("org/tiny", backend="cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [("org/nothing", "no model"), ("org/tiny@v9", "no revision"), ("org/gated", "gated")],
)
def test_what_the_hub_refuses_is_said(hub: FakeHub, name: str, words: str) -> None:
    with pytest.raises(ModelNotFoundError, match=words):
        plan(name, backend="cpu")


def test_a_broken_hub_is_a_download_error(hub: FakeHub) -> None:
    hub.is_broken = True
    with pytest.raises(DownloadError, match="org/tiny"):
        plan("org/tiny", backend="cpu")


def test_a_hub_that_is_not_reached_is_said_with_what_to_do(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match="could not be looked at on the hub .*: connect, or name a local folder"):
        plan("org/unknown")
