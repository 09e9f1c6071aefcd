import threading
from types import SimpleNamespace

import pytest
from fake_hub import FakeHub

from workbench.errors import ConfigError, DownloadError
from workbench.models.hub_search import HubModel, search_hub


def test_sizes_come_from_the_dtypes_of_the_weights():
    asked = {}

    def list_models(**query):
        asked.update(query)
        weights = SimpleNamespace(parameters={"BF16": 1_000, "F32": 10})
        yield SimpleNamespace(id="org/a", safetensors=weights, downloads=7, gated="manual")
        yield SimpleNamespace(id="org/b", safetensors=None, downloads=None, gated=False)

    assert search_hub(" llama ", list_models=list_models) == [
        HubModel("org/a", 1_010, 2_040, 7, True),
        HubModel("org/b", None, None, None, False),
    ]
    assert (asked["search"], asked["pipeline_tag"], asked["limit"]) == ("llama", "text-generation", 20)


def test_a_hub_that_cannot_be_reached_is_said_in_a_line():
    def list_models(**query):
        raise ConnectionError("no route\nto host")

    with pytest.raises(DownloadError, match="the hub can't be searched: ConnectionError: no route; models"):
        search_hub("x", list_models=list_models)


def test_a_hub_is_asked_once_and_not_waited_for_without_end(monkeypatch, tmp_path):
    with FakeHub({"org/a": tmp_path}) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        assert search_hub("a") == [HubModel("org/a", None, None, 1, False)]
        hub.is_broken = True
        with pytest.raises(DownloadError, match="the hub can't be searched"):
            search_hub("a")
        assert hub.requests.count("GET /api/models") == 2
    is_over = threading.Event()
    with pytest.raises(DownloadError, match="did not answer within 0.01 s"):
        search_hub("a", list_models=lambda **query: [is_over.wait()], timeout_s=0.01)
    is_over.set()


def test_offline_is_not_asked(monkeypatch):
    # Set in a notebook, when the hub's client has been imported long since.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        search_hub("x")


def test_an_empty_text_is_refused():
    with pytest.raises(ConfigError, match="text is empty"):
        search_hub(" ")
