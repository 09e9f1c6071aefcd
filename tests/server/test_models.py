"""Listing models, and changing the one that is loaded: allowed names, progress, failures that roll back, and races."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from live_endpoint import ADMIN_KEY, MODEL, chat, http_client

from workbench import LlamaGPU
from workbench.server.settings import LoadSettings, QueueSettings, ServerSettings
from workbench.session import Session

TINY = {"prefer_gpu": False, "auto_detect_aws": False}


@pytest.fixture
def models(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """A folder with two tiny models, "first" and "second"."""
    for name in ("first", "second"):
        shutil.copytree(tiny_model_folder, tmp_path / "models" / name)
    return tmp_path / "models"


@pytest.fixture
def changing(models, make_endpoint):
    """An endpoint that owns its model, "first", and may load what is in `models`."""
    llm = LlamaGPU(models / "first", **TINY)
    made = []

    def load(choice, progress):
        made.append(choice)
        return LlamaGPU(choice.model, backend=choice.backend, quant_type=choice.precision, progress=progress, **TINY)

    session = Session(load)
    session.adopt(llm)
    settings = ServerSettings(load=LoadSettings(model_roots=(str(models),)), queue=QueueSettings(drain_s=0.2))
    endpoint = make_endpoint(settings, session=session, may_change=True)
    endpoint.loads = made
    yield endpoint
    llm.unload()


def load(client, name, **fields):
    return client.post("/v1/models/load", json={"model": name, **fields})


def names(client):
    return [model["id"] for model in client.get("/v1/models").json()["data"]]


def test_the_loaded_model_is_listed_and_found(http):
    (listed,) = http.get("/v1/models").json()["data"]
    assert listed["id"] == MODEL and listed["object"] == "model" and listed["max_model_len"] == 1024
    assert http.get(f"/v1/models/{MODEL}").json() == listed
    reply = http.get("/v1/models/no/such")
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "model_not_found"


def test_load_unload_and_load_again(changing):
    with http_client(changing, ADMIN_KEY) as client:
        assert names(client) == ["first"]
        reply = load(client, "second")
        assert reply.json() == {"status": "loaded", "model": "second", "model_name": "second", "revision": None}
        assert names(client) == ["second"]
        assert client.post("/v1/completions", json={"model": "second", "prompt": "x"}).status_code == 200
        assert client.post("/v1/completions", json={"model": "first", "prompt": "x"}).status_code == 404
        assert client.post("/v1/models/unload", json={"model": "another"}).status_code == 404
        assert client.post("/v1/models/unload", json={"foo": 1}).status_code == 400
        assert client.post("/v1/models/unload", content="{junk").status_code == 415
        freed = client.post("/v1/models/unload").json()
        assert freed["status"] == "unloaded"
        assert names(client) == [] and client.get("/ready").status_code == 503
        reply = client.post("/v1/completions", json={"prompt": "x"})
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "model_not_loaded"
        assert load(client, "first").status_code == 200
        assert client.get("/ready").status_code == 200


def test_progress_comes_as_events(changing):
    with http_client(changing, ADMIN_KEY) as client:
        reply = load(client, "second", stream=True)
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    told = [json.loads(event) for event in events[:-1]]
    assert told[-1]["status"] == "loaded"
    assert all(event["status"] == "loading" and event["stage"] for event in told[:-1])


def test_the_precision_that_was_chosen_is_used_by_the_next_load(changing):
    with http_client(changing, ADMIN_KEY) as client:
        for name in ("fp32", "int8"):
            reply = client.post("/v1/quantization/config", json={"quantization_type": name})
            assert reply.json()["status"] == "config_updated"
            load(client, "second")
            stats = client.get("/v1/quantization/stats").json()
            assert stats["model_stats"]["quantization_type"] == name
        load(client, "first")
        stats = client.get("/v1/quantization/stats").json()
        assert stats["model_stats"]["quantization_type"] == "int8", "it stays so until another is chosen"


def test_quantised_weights_that_were_kept_are_loaded_and_let_go(changing):
    body = {"model_name": "first", "quantization_type": "int8"}
    with http_client(changing, ADMIN_KEY) as client:

        def ask(action):
            return client.post("/v1/quantization/cache", json={**body, "action": action})

        assert ask("load").status_code == 404
        assert ask("cache").json() == {"status": "cached", "model_name": "first", "freed_bytes": None}
        assert client.get("/v1/quantization/stats").json()["model_stats"]["quantization_type"] == "bf16"
        assert ask("load").json() == {"status": "loaded", "model_name": "first", "freed_bytes": None}
        stats = client.get("/v1/quantization/stats").json()
        assert stats["model_stats"]["quantization_type"] == "int8"
        assert stats["model_stats"]["quantization_time"] is None, "it was read, and not quantised again"
        assert stats["cache_stats"]["total_models"] == 1
        assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
        assert ask("clear").json()["freed_bytes"] > 0
        assert ask("load").status_code == 404


def test_files_that_are_wrong_are_found_while_the_old_model_serves(changing, models):
    weights = models / "second" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with http_client(changing, ADMIN_KEY) as client:
        reply = load(client, "second")
        assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_model"
        assert str(models) not in reply.text
        assert changing.loads == []
        assert names(client) == ["first"]


def test_a_notebooks_model_cannot_be_changed_from_outside(admin):
    reply = load(admin, "default")
    assert reply.status_code == 409 and reply.json()["error"]["code"] == "model_is_shared"
    assert admin.post("/v1/models/unload").status_code == 409


def test_random_and_hub_models_only_when_they_are_allowed(models, make_endpoint):
    session = Session(lambda choice, progress: LlamaGPU(choice.model, progress=progress, **TINY))
    session.adopt(LlamaGPU(models / "first", **TINY))
    endpoint = make_endpoint(ServerSettings(load=LoadSettings(allow_random=True)), session=session, may_change=True)
    with http_client(endpoint, ADMIN_KEY) as client:
        assert load(client, "random:tiny").status_code == 200
        assert load(client, "org/name").status_code == 403
        assert load(client, "default", revision="main").json()["error"]["param"] == "revision"
        assert client.post("/v1/chat/completions", json=chat()).status_code in (200, 400)
