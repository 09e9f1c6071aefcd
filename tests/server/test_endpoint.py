"""Starting and stopping: from a notebook, again and again, on taken ports, and from several doors at once."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_endpoint import MODEL, USE_KEY, chat, http_client, start_endpoint, streaming

from workbench.errors import ConfigError
from workbench.server import serve
from workbench.server.endpoints import PROCESS_ENDPOINTS
from workbench.server.keys import default_key_file
from workbench.server.settings import ListenSettings, ServerSettings, WireLimits


@pytest.fixture(autouse=True)
def no_endpoint_stays():
    yield
    PROCESS_ENDPOINTS.stop_all()


def ask(endpoint, key=None):
    headers = {"authorization": f"Bearer {key or endpoint.api_key}"}
    return httpx.post(f"{endpoint.url}/chat/completions", json=chat(), headers=headers, trust_env=False, timeout=60)


def num_servers():
    return sum(thread.name == "workbench-server" for thread in threading.enumerate())


def test_a_notebook_serves_its_model_and_stops(llm):
    endpoint = llm.serve()
    assert endpoint.is_running and endpoint.port > 0
    assert ask(endpoint).json()["choices"][0]["message"]["content"] == llm.chat("Say hello.", max_tokens=4)
    endpoint.stop()
    endpoint.stop()
    assert not endpoint.is_running
    with pytest.raises(httpx.ConnectError):
        ask(endpoint)
    assert llm.is_loaded


def test_running_the_cell_again_gives_the_same_server(llm):
    before = num_servers()
    endpoints = [llm.serve(port=0, requests_per_minute=50) for _ in range(5)]
    assert len(set(map(id, endpoints))) == 1 and num_servers() == before + 1


def test_with_other_settings_the_new_one_takes_over_port_and_key(llm):
    before = num_servers()
    first = llm.serve()
    second = llm.serve(requests_per_minute=1)
    assert not first.is_running and num_servers() == before + 1
    assert (second.port, second.api_key) == (first.port, first.api_key)
    assert [ask(second).status_code for _ in range(2)] == [200, 429]


def test_names_tell_servers_apart(llm):
    first, second = llm.serve(name="first"), llm.serve(name="second", api_key="a-key-of-my-own")
    assert first.port != second.port
    assert ask(second, "a-key-of-my-own").status_code == 200 and ask(first, "a-key-of-my-own").status_code == 401


def test_stored_keys_work_beside_the_generated_one(llm):
    stored = default_key_file().create("stored")
    assert ask(llm.serve(), stored.secret).status_code == 200


def test_keys_do_not_show_in_a_notebooks_output(llm):
    endpoint = llm.serve()
    assert endpoint.api_key not in repr(endpoint) + str(endpoint) + repr(endpoint.access)


def test_a_taken_port_is_said_so(llm):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={port}"):
            llm.serve(port=port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prot": 0}, "unknown setting 'prot'"),
        ({"port": 70_000}, "port=70000"),
        ({"requests_per_minute": 0}, "requests_per_minute=0"),
        ({"heartbeat_s": -1}, "heartbeat_s=-1"),
        ({"api_key": "short"}, "api_key"),
        ({"api_key": "with a blank"}, "api_key"),
        ({"host": "0.0.0.0"}, "key of your own"),
        ({"model_roots": ("/no/such/folder",)}, "model_roots"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_starts(llm, options, message):
    before = num_servers()
    with pytest.raises(ConfigError, match=message):
        serve(llm, **options)
    assert num_servers() == before


def test_settings_can_be_given_whole(llm):
    settings = ServerSettings(ListenSettings(port=0), wire=WireLimits(max_body_bytes=50))
    assert ask(llm.serve(settings=settings)).status_code == 413


def test_all_doors_share_one_batch(endpoint, http, llm):
    with streaming(http, {"prompt": "Hi", "max_tokens": 400, "ignore_eos": True}), ThreadPoolExecutor(1) as pool:
        from_notebook = pool.submit(llm.infer, "The capital of France is", max_tokens=3)
        both = False
        while not from_notebook.done():
            both |= llm.stats().num_running == 2
        assert both and from_notebook.result()


def test_an_endpoint_is_a_context_manager(llm):
    with start_endpoint(llm) as endpoint:
        assert endpoint.is_running
    assert not endpoint.is_running


def test_an_endpoint_outlives_its_model_and_says_so(tiny_model_folder):
    from workbench import LlamaGPU

    llm = LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False)
    with start_endpoint(llm) as endpoint, http_client(endpoint) as client:
        llm.unload()
        assert client.get("/v1/models").json()["data"] == []
        reply = client.post("/v1/chat/completions", json=chat())
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "model_not_loaded"
        assert client.get("/ready").status_code == 503


def test_quiet_streams_get_heartbeats(make_endpoint):
    # Far less than a token takes.
    endpoint = make_endpoint(ServerSettings(wire=WireLimits(heartbeat_s=0.001)))
    body = chat(stream=True, max_tokens=64, ignore_eos=True)
    with http_client(endpoint) as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = list(reply.iter_lines())
    assert any(line.startswith(":") for line in lines)
    assert lines[-2] == "data: [DONE]"


def test_the_model_may_have_further_names(llm, make_endpoint):
    assert MODEL == llm.model_name and USE_KEY
    with start_endpoint(llm) as endpoint, http_client(endpoint) as client:
        for name in (MODEL, str(llm.model_path)):
            assert client.post("/v1/chat/completions", json=chat(model=name)).status_code == 200
