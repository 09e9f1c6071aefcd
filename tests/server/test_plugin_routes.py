"""Routes of a plugin held against random requests: no failure, errors in one form, and nobody in without a key."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from fastapi import APIRouter, HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_endpoint import http_client, start_endpoint
from pydantic import BaseModel, Field

from workbench.llm import LlamaGPU
from workbench.plugins import BasePlugin, PluginMetadata, default_plugins, hookimpl

router = APIRouter()


class Item(BaseModel):
    name: str = Field(max_length=20)
    count: int = Field(ge=0)


@router.get("/items/{number}")
def read_item(number: int, words: str | None = None) -> dict[str, object]:
    if number > 10:
        raise HTTPException(404, "there are ten items")
    return {"number": number, "words": words}


@router.post("/items")
def add_item(item: Item) -> Item:
    return item


class Items(BasePlugin):
    metadata = PluginMetadata("items", "1.0", permissions=("routes",))

    @hookimpl
    def register_routes(self, register):
        register("items", router)


plugin = Items()


@pytest.fixture
def endpoint(tiny_model_folder, monkeypatch):
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    manager = default_plugins()
    manager.load("items", f"{__name__}:plugin")
    with LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False) as llm, start_endpoint(llm) as running:
        yield running
    manager.unload_plugin("items")


PATHS = st.one_of(
    st.sampled_from(["/items", "/items/1", "/items/11", "/items/x", "/items/1?words=%ff", "/", "", "/../../v1/models"]),
    st.text(max_size=30).map(lambda text: "/" + quote(text.encode("utf-8", "replace"), safe="")),
    st.integers().map("/items/{}".format),
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b'{"name": "a", "count": 1}', b'{"name": "a", "count": -1}', b"[" * 20_000, b"NaN", b"null"]),
)
KINDS = st.sampled_from(["application/json", "text/plain", "multipart/form-data; boundary=x", "", "application/json;;"])
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])


def test_random_requests_find_no_failure_and_no_way_in(endpoint) -> None:
    with http_client(endpoint) as client, http_client(endpoint, None) as stranger:

        @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
        @given(METHODS, PATHS, BODIES, KINDS)
        def probe(method, path, body, kind):
            asked = {"content": body, "headers": {"content-type": kind}}
            reply = client.request(method, f"/plugins/items{path}", **asked)
            assert reply.status_code < 500
            statuses.add(reply.status_code)
            if reply.status_code >= 400 and method != "HEAD":
                assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
            # After many tries without a key they are answered 429.
            assert stranger.request(method, f"/plugins/items{path}", **asked).status_code in (401, 429)

        statuses = set()
        probe()
    assert {200, 400, 404, 405} <= statuses


def test_what_is_wrong_is_named(endpoint) -> None:
    with http_client(endpoint) as client:
        wrong = client.post("/plugins/items/items", json={"name": "a", "count": -1})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "count")
        missing = client.get("/plugins/items/items/11")
        assert (missing.status_code, missing.json()["error"]["message"]) == (404, "there are ten items")
