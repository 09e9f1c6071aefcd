from types import SimpleNamespace

import pytest

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


def test_offline_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        search_hub("x")


def test_an_empty_text_is_refused():
    with pytest.raises(ConfigError, match="text is empty"):
        search_hub(" ")
