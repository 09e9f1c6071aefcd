"""Plugins over HTTP: named in a request, refused where they are not in use, and with routes of their own."""

from __future__ import annotations

import json

import httpx
import pytest
from fastapi import APIRouter
from live_endpoint import http_client
from plugin_packages import write_wheel

from workbench.llm import LlamaGPU
from workbench.plugins import (
    BasePlugin,
    PluginMarketplace,
    PluginMetadata,
    SigningKey,
    default_plugins,
    hookimpl,
    write_index,
)
from workbench.plugins.examples.stop_phrases import StopPhrases

router = APIRouter()


@router.get("/hello")
def hello() -> dict[str, str]:
    return {"hello": "world"}


@router.get("/broken")
def broken() -> None:
    raise RuntimeError("no")


class Web(BasePlugin):
    metadata = PluginMetadata("web", "1.0", permissions=("routes", "stream_filters"))

    @hookimpl
    def register_routes(self, register):
        register("web", router)

    @hookimpl
    def register_stream_filters(self, register):
        register("phrases", StopPhrases)


plugin = Web()


@pytest.fixture
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)


@pytest.fixture
def web(llm: LlamaGPU, no_trial: None):
    """The plugin in the manager of the shared model."""
    llm.plugins.load("web", f"{__name__}:plugin")
    yield llm.plugins
    llm.plugins.unload_plugin("web")


BODY = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}


def test_a_request_names_a_plugin(http: httpx.Client, web) -> None:
    plain = http.post("/v1/completions", json=BODY).json()["choices"][0]["text"]
    word = plain.split()[-1]
    answer = http.post("/v1/completions", json={**BODY, "plugins": {"phrases": {"replace": {word: "###"}}}}).json()
    assert answer["choices"][0]["text"] == plain.replace(word, "###")
    stopped = http.post("/v1/completions", json={**BODY, "plugins": {"phrases": {"stop": [word]}}}).json()
    assert stopped["choices"][0]["text"] == plain[: plain.index(word)]
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_a_stream_goes_through_it(http: httpx.Client, web) -> None:
    chat = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}
    whole = http.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
    with http.stream(
        "POST", "/v1/chat/completions", json={**chat, "stream": True, "plugins": {"phrases": {"watermark": " [m]"}}}
    ) as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events) == f"{whole} [m]"


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ({"nobody": {}}, "'nobody' is not active here"),
        ({"phrases": {"colour": 1}}, "'colour' is not known"),
    ],
)
def test_what_is_not_there_is_a_400_that_names_it(http: httpx.Client, web, plugins: dict, words: str) -> None:
    for path, body in (
        ("/v1/completions", BODY),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ):
        answer = http.post(path, json={**body, "plugins": plugins})
        assert answer.status_code == 400 and words in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == "plugins"


def test_forms_that_are_none(http: httpx.Client) -> None:
    for plugins in ("phrases", ["phrases"], {"phrases": 5}):
        answer = http.post("/v1/completions", json={**BODY, "plugins": plugins})
        assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("plugins")


def test_routes_of_a_plugin(make_endpoint, no_trial: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "workbench.server.access")
    manager = default_plugins()
    manager.load("web", f"{__name__}:plugin")
    endpoint = make_endpoint()
    with http_client(endpoint) as client, http_client(endpoint, None) as stranger:
        assert client.get("/plugins/web/hello").json() == {"hello": "world"}
        assert stranger.get("/plugins/web/hello").status_code == 401
        assert client.get("/plugins/web/gone").status_code == 404
        broken = client.get("/plugins/web/broken")
        assert broken.status_code == 500 and broken.json()["error"]["code"] == "plugin_failed"
        assert manager.failure("web").message == "routes web: RuntimeError: no"
        assert client.get("/health").status_code == 200
        manager.unload_plugin("web")
        assert client.get("/plugins/web/hello").status_code == 404
    # A request is noted when all of it is done, which these are once the endpoint has stopped.
    endpoint.stop()
    noted = [json.loads(line)["path"] for line in caplog.messages if line.startswith("{")]
    assert "/plugins/web/hello" in noted and "/hello" not in noted


def test_plugins_are_switched_over_http(admin: httpx.Client, http: httpx.Client, no_trial: None) -> None:
    rows = {row["name"]: row for row in admin.get("/dashboard/plugins").json()["plugins"]}
    assert rows["stop-phrases"]["status"] == "off"
    on = admin.post("/dashboard/plugins/load", json={"name": "stop-phrases"}).json()
    assert on == {"name": "stop-phrases", "status": "loaded | valid: True | dependencies: ok", "changed": True}
    off = admin.post("/dashboard/plugins/unload", json={"name": "stop-phrases"}).json()
    assert off == {"name": "stop-phrases", "status": "not loaded", "changed": True}
    assert not admin.post("/dashboard/plugins/unload", json={"name": "stop-phrases"}).json()["changed"]
    for body in ({"name": "nobody"}, {"name": "../x"}, {"name": "stop-phrases", "path": "os"}, {"name": 3}):
        assert admin.post("/dashboard/plugins/load", json=body).status_code == 400
    for method, path in (("GET", "/dashboard/plugins"), ("POST", "/marketplace/plugins/install")):
        assert http.request(method, path, json={"name": "x"} if method == "POST" else None).status_code == 403


def test_the_marketplace_over_http(admin: httpx.Client, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert admin.get("/marketplace/plugins").json()["error"]["code"] == "no_index"
    key = SigningKey.generate()
    PluginMarketplace(str(tmp_path)).keys.trust("us", key.public_key)
    write_wheel(tmp_path, "mine", "1.0")
    write_index(tmp_path, key)
    monkeypatch.setenv("WORKBENCH_PLUGIN_INDEX", str(tmp_path))
    assert admin.get("/marketplace/plugins").json() == {"plugins": ["mine"], "installed": []}
    assert admin.post("/marketplace/plugins/install", json={"name": "mine"}).json()["changed"] is True
    assert admin.post("/marketplace/plugins/update", json={"name": "mine"}).json()["changed"] is False
    write_wheel(tmp_path, "mine", "1.1")
    write_index(tmp_path)
    refused = admin.post("/marketplace/plugins/update", json={"name": "mine"})
    assert refused.status_code == 400 and "not signed" in refused.json()["error"]["message"]
    assert admin.get("/marketplace/plugins").json()["installed"] == ["mine"]
