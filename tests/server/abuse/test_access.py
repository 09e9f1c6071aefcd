"""Abuse cases 1 to 16: keys, scopes, hosts, origins and addresses."""

from __future__ import annotations

import hmac
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_endpoint import ADMIN_KEY, MODEL, USE_KEY, chat, http_client, streaming, wait_until_idle
from raw_http import head, send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from workbench.errors import ConfigError
from workbench.server import keys as keys_module
from workbench.server.access import Access
from workbench.server.app import create_app
from workbench.server.endpoint import Endpoint
from workbench.server.keys import KeyFile, KeyRing, Scope, static_key
from workbench.server.routes import ROUTERS
from workbench.server.settings import PUBLIC_PATHS, ListenSettings, ServerSettings, WireLimits


def is_refusal(reply, status=401):
    error = reply.json()["error"]
    return reply.status_code == status and set(error) == {"message", "type", "param", "code"}


def test_01_a_key_in_any_other_form_is_a_401(endpoint):
    forms = [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer")],
        [("authorization", f"Basic {USE_KEY}")],
        [("authorization", USE_KEY)],
        [("authorization", f"Bearer {USE_KEY} x")],
        [("authorization", f"Bearer  {USE_KEY}")],
        [("authorization", f"Bearer {USE_KEY}"), ("authorization", f"Bearer {USE_KEY}")],
        [("authorization", f"Bearer {USE_KEY}"), ("x-api-key", USE_KEY)],
        [("x-api-key", "wrong")],
        [("x-api-key", "")],
    ]
    with http_client(endpoint, None) as client:
        for headers in forms:
            reply = client.get("/v1/models", headers=headers)
            assert is_refusal(reply), headers
            assert reply.headers["www-authenticate"].startswith("Bearer")


def test_01_a_blank_after_the_key_belongs_to_http_and_not_to_the_key(endpoint):
    """HTTP itself drops blanks around a header's value, so only what is inside of it can be wrong."""
    plain = send(
        endpoint, head("GET", "/v1/models", f"Authorization: Bearer {USE_KEY}  ", "Connection: close", key=None)
    )
    inside = send(
        endpoint, head("GET", "/v1/models", f"Authorization: Bearer {USE_KEY}%20", "Connection: close", key=None)
    )
    assert (plain.status, inside.status) == (200, 401)


def test_02_the_right_key_in_the_wrong_case_is_a_401(endpoint):
    for key in (USE_KEY.upper(), USE_KEY.title()):
        with http_client(endpoint, key) as client:
            assert client.get("/v1/models").status_code == 401


def all_routes():
    for router in ROUTERS:
        for route in router.routes:
            for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"}):
                yield method, route.path


def test_03_every_route_needs_a_key_unless_it_is_on_the_public_list(endpoint):
    routes = list(all_routes())
    assert len(routes) > 15
    with http_client(endpoint, None) as client:
        for method, path in [*routes, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/docs/oauth2-redirect")]:
            if method == "WEBSOCKET":
                continue
            for verb in {method, "HEAD", "OPTIONS", "PUT", "DELETE"}:
                reply = client.request(verb, path.replace("{model:path}", "x"))
                expected = (200, 405) if path in PUBLIC_PATHS else (401,)
                assert reply.status_code in expected, (verb, path)


def test_03_a_path_that_does_not_exist_is_not_told_apart_without_a_key(endpoint):
    with http_client(endpoint, None) as client:
        assert client.get("/no/such/path").status_code == 401
    with http_client(endpoint) as client:
        assert is_refusal(client.get("/no/such/path"), 404)
        assert is_refusal(client.delete("/v1/models"), 405)


def socket_url(endpoint, query=""):
    return endpoint.url.replace("http://", "ws://") + "/stream" + query


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        (f"?api_key={USE_KEY}", {}),
        (f"?token={USE_KEY}", {}),
        ("", {"authorization": "Bearer wrong"}),
        ("", {"cookie": f"key={USE_KEY}"}),
    ],
)
def test_04_a_websocket_without_a_key_in_its_headers_is_refused_before_it_is_accepted(endpoint, query, headers):
    with pytest.raises(InvalidStatus) as caught:
        connect(socket_url(endpoint, query), additional_headers=headers, proxy=None).__enter__()
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body)["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1//models",
        "/v1/../v1/models",
        "/./v1/models",
        "/health/../v1/models",
        "/health/",
        "/health%2f..%2fv1/models",
        "/V1/models",
        "/%76%31/models",
        "/%2fv1/models",
        "/v1/models/",
        "/v1/models%0a",
        "/v1/models;x",
        "/health%00",
        "/health;/../v1/models",
        "/docs/../v1/models",
        "http://localhost/v1/models",
        "/root/v1/models",
    ],
)
def test_05_no_spelling_of_a_path_opens_it(endpoint, path):
    reply = send(endpoint, head("GET", path, "Connection: close", key=None))
    assert reply.status in (400, 401)


@pytest.mark.parametrize("prefix", ["/proxy", "/health", "/docs", "/v1/models"])
async def test_05_under_a_root_path_nothing_opens(endpoint, prefix):
    """As behind a proxy that keeps its prefix, for an application that is told of it."""
    transport = httpx.ASGITransport(create_app(endpoint._services), root_path=prefix)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for method, path in all_routes():
            if method == "WEBSOCKET":
                continue
            path = path.replace("{model:path}", "x")
            for tried in (prefix + path, path, prefix + prefix + path, f"{prefix}/..{path}", f"{prefix}/{path}"):
                reply = await client.request(method, tried)
                is_public = tried in PUBLIC_PATHS or reply.request.url.path in PUBLIC_PATHS
                assert reply.status_code == 401 or is_public, (prefix, method, tried)
        # The prefix is followed, so it was the missing key that refused.
        reply = await client.get(f"{prefix}/v1/models", headers={"authorization": f"Bearer {USE_KEY}"})
        assert reply.status_code == 200


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Prefix", "X-Script-Name", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path"]
)
def test_05_no_header_sets_a_root_path_or_another_path(endpoint, name):
    public = send(endpoint, head("GET", "/health", f"{name}: /v1/models", "Connection: close", key=None))
    assert json.loads(public.body) == {"status": "ok"}
    for value in ("/health", "/v1", "/"):
        assert (
            send(endpoint, head("GET", "/v1/models", f"{name}: {value}", "Connection: close", key=None)).status == 401
        )


def test_06_a_use_key_may_not_do_what_needs_an_admin(endpoint):
    paths = [
        "/v1/models/load",
        "/v1/models/unload",
        "/v1/multi-gpu/config",
        "/v1/quantization/config",
        "/v1/quantization/cache",
    ]
    with http_client(endpoint) as use, http_client(endpoint, ADMIN_KEY) as admin:
        for path in paths:
            reply = use.post(path, json={})
            assert is_refusal(reply, 403) and reply.json()["error"]["code"] == "admin_key_required"
            assert admin.post(path, json={}).status_code != 403
            # "$" in a route's pattern also matches before a line break at the end.
            assert use.post(f"{path}%0a", json={}).status_code in (403, 404)


@pytest.mark.parametrize(
    "key",
    [
        b"'; DROP TABLE keys; --",
        b'"quoted"',
        "\u00fcml\u00e4ut".encode("latin-1"),
        b"\xff\xfe",
        b"a" * 30_000,
        b"wb-" + b"0" * 43,
    ],
)
def test_07_a_strange_key_is_a_401_and_no_more(endpoint, key):
    reply = send(endpoint, head("GET", "/v1/models", "Connection: close", key=key.decode("latin-1")))
    assert reply.status == 401 and reply.error["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", [b"a\x00b", b"a" * 2**20])
def test_07_a_key_that_is_no_header_value_is_a_4xx(endpoint, key):
    reply = send(endpoint, head("GET", "/v1/models", "Connection: close", key=key.decode("latin-1")))
    assert reply.status in (0, 400, 401, 431)


def num_instructions(function, *args):
    """How many instructions of Python's are executed by a call, as far as our code for keys is concerned."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename != keys_module.__file__:
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    finally:
        sys.settrace(before)
    return count


def test_08_what_a_check_does_says_nothing_about_the_key(monkeypatch):
    """In 2,000 tries the same instructions and comparisons, however much of a key is right; benchmarks/server.py has
    the times."""
    keys = [static_key(f"k{i}", Scope.USE) for i in range(8)]
    ring = KeyRing([key.key for key in keys])
    compared = []
    compare_digest = hmac.compare_digest

    def noted(given, known):
        compared.append((type(given), len(given), len(known)))
        return compare_digest(given, known)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", noted)
    wrong, right = set(), set()
    for number in range(1000):
        # As much of the beginning as the number says, and then something else.
        secret = keys[number % 8].secret
        place = number % len(secret)
        other = "a" if secret[place] != "a" else "b"
        tried = secret[:place] + other * (len(secret) - place)
        assert ring.find(tried.encode()) is None
        wrong.add(num_instructions(ring.find, tried.encode()))
        right.add(num_instructions(ring.find, secret.encode()))
        assert ring.find(secret.encode()) is keys[number % 8].key
    # Which key it is makes no difference either; that it is one, the answer says anyway.
    assert len(wrong) == 1 and len(right) == 1
    assert set(compared) == {(bytes, 64, 64)} and len(compared) == 4 * 1000 * len(keys), "always all, always whole"


def test_09_keys_stay_out_of_logs_figures_and_representations(make_endpoint, tmp_path, caplog, capfd):
    file = KeyFile(tmp_path / "keys.json")
    stored = file.create("stored")
    with caplog.at_level(logging.DEBUG):
        endpoint = make_endpoint(key_file=file)
        secrets = [USE_KEY, ADMIN_KEY, stored.secret, "wrong-key-that-was-tried"]
        texts = []
        for key in secrets:
            with http_client(endpoint, key) as client:
                texts += [client.get("/v1/models").text, client.get("/metrics").text]
                texts.append(client.post("/v1/chat/completions", json={"messages": key}).text)
                client.get("/v1/models", headers={"x-api-key": key}, params={"key": key})
        objects = [endpoint, endpoint.settings, endpoint.access.ring, stored, stored.key, endpoint.access.use_key]
        texts += [repr(each) for each in objects]
    shown = capfd.readouterr()
    for secret in secrets:
        told = [record for record in caplog.records if record.name.startswith(("workbench", "uvicorn"))]
        assert not [record for record in told if secret in record.getMessage()]
        assert secret not in shown.out + shown.err
        assert not [text for text in texts if secret in text]
    content = file.path.read_text()
    assert stored.secret not in content and stored.key.digest in content
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_10_a_revoked_key_ends_with_the_next_request_and_closes_its_sockets(make_endpoint, tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    made = file.create("soon gone")
    endpoint = make_endpoint(key_file=file)
    headers = {"authorization": f"Bearer {made.secret}"}
    with (
        http_client(endpoint, made.secret) as client,
        connect(socket_url(endpoint), additional_headers=headers, proxy=None) as ws,
    ):
        assert client.get("/v1/models").status_code == 200
        file.revoke(made.key.key_id)
        assert client.get("/v1/models").status_code == 401
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=60)
        assert caught.value.rcvd.code == 1008


def test_10_what_a_revoked_key_has_running_ends_with_an_error(make_endpoint, tmp_path, llm):
    """A stream, an answer, a request that waits for room, and a socket's answer, at the latest a heartbeat later."""
    file = KeyFile(tmp_path / "keys.json")
    made = file.create("soon gone")
    settings = ServerSettings(wire=WireLimits(heartbeat_s=0.2))
    endpoint = make_endpoint(settings, key_file=file)
    headers = {"authorization": f"Bearer {made.secret}"}
    long = {"prompt": "Hi", "max_tokens": 1000, "ignore_eos": True, "temperature": 1}
    with (
        http_client(endpoint, made.secret) as client,
        http_client(endpoint) as other,
        connect(socket_url(endpoint), additional_headers=headers, proxy=None) as ws,
        ThreadPoolExecutor(2) as pool,
    ):
        ws.send(json.dumps(long))
        ws.recv(timeout=60)
        with streaming(client, {**long, "n": 16}) as lines:
            whole = pool.submit(client.post, "/v1/completions", json={**long, "n": 2})
            waiting = pool.submit(client.post, "/v1/completions", json={**long, "n": 8})
            while other.get("/v1/monitor/queues").json()["waiting_for_room"] < 1:
                pass
            file.revoke(made.key.key_id)
            *_, last, done = [line for line in lines if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key"
        assert done == "data: [DONE]"
        assert is_refusal(whole.result()) and is_refusal(waiting.result())
        while not (frame := ws.recv(timeout=60)).startswith('{"error"'):
            pass
        assert json.loads(frame)["error"]["code"] == "invalid_api_key"
    wait_until_idle(llm)


def test_10_a_revoked_key_cannot_use_the_socket_that_it_opened(make_endpoint, tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    made = file.create("soon gone")
    endpoint = make_endpoint(key_file=file)
    headers = {"authorization": f"Bearer {made.secret}"}
    with connect(socket_url(endpoint), additional_headers=headers, proxy=None) as ws:
        file.revoke(made.key.key_id)
        ws.send(json.dumps({"prompt": "Hi"}))
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=60)


FOREIGN = [
    "https://evil.example",
    "null",
    "http://localhost.evil.com",
    "http://localhost:1",
    "https://app.example.evil.com",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_11_no_foreign_page_may_read_an_answer(endpoint, make_endpoint, origin):
    allowing = make_endpoint(ServerSettings(ListenSettings(cors_origins=("https://app.example",))))
    for server in (endpoint, allowing):
        with http_client(server) as client:
            reply = client.get("/v1/models", headers={"origin": origin})
            assert "access-control-allow-origin" not in reply.headers


def test_11_an_allowed_page_is_named_and_gets_no_credentials(make_endpoint):
    endpoint = make_endpoint(ServerSettings(ListenSettings(cors_origins=("https://app.example",))))
    with http_client(endpoint) as client:
        reply = client.get("/v1/models", headers={"origin": "https://app.example"})
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize("origin", ["*", "https://*.example", "app.example", "null", "https://app.example/path"])
def test_11_an_origin_with_a_wildcard_is_no_setting(origin):
    with pytest.raises(ConfigError, match="cors_origins"):
        ListenSettings(cors_origins=(origin,))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
def test_12_another_host_name_is_refused(endpoint, host):
    reply = send(endpoint, head("GET", "/health", "Connection: close", host=host))
    assert reply.status == 421 and reply.error["code"] == "wrong_host"


def test_12_two_host_headers_are_refused(endpoint):
    reply = send(endpoint, head("GET", "/health", "Host: evil.example", "Connection: close"))
    assert reply.status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_12_own_names_and_addresses_are_fine(endpoint, host):
    assert send(endpoint, head("GET", "/health", "Connection: close", host=host)).status == 200


def test_12_further_names_can_be_allowed(make_endpoint):
    endpoint = make_endpoint(ServerSettings(ListenSettings(allowed_hosts=("Lab.example",))))
    assert send(endpoint, head("GET", "/health", "Connection: close", host="lab.example:80")).status == 200


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"],
)
def test_13_json_that_is_not_sent_as_json_starts_nothing(http, llm, content_type):
    before = llm.stats().requests_total
    headers = {"content-type": content_type, "origin": "https://evil.example"}
    reply = http.post("/v1/chat/completions", content=json.dumps(chat()), headers=headers)
    assert reply.status_code == 415 and reply.json()["error"]["code"] == "unsupported_media_type"
    assert llm.stats().requests_total == before


@pytest.mark.parametrize("origin", FOREIGN)
def test_14_a_page_of_another_origin_gets_no_websocket(endpoint, origin):
    headers = {"authorization": f"Bearer {USE_KEY}"}
    with pytest.raises(InvalidStatus) as caught:
        connect(socket_url(endpoint), additional_headers=headers, origin=origin, proxy=None).__enter__()
    assert caught.value.response.status_code == 403


def test_14_a_page_of_this_server_gets_one(endpoint):
    headers = {"authorization": f"Bearer {USE_KEY}"}
    own = endpoint.url.removesuffix("/v1")
    with connect(socket_url(endpoint), additional_headers=headers, origin=own, proxy=None) as ws:
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1}))
        assert ws.recv(timeout=60)


def test_15_an_open_address_needs_a_key_of_ones_own(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    for host in ("0.0.0.0", "192.168.1.1", "::"):
        listen = ListenSettings(host=host, port=0)
        with pytest.raises(ConfigError, match="key of your own"):
            Endpoint(lambda: None, ServerSettings(listen), Access.of(listen, file))


@pytest.mark.parametrize("options", [{"api_key": "a-key-of-my-own"}, {"admin_key": "a-key-of-my-own"}])
def test_15_with_one_it_is_served(tmp_path, options):
    listen = ListenSettings(host="0.0.0.0", port=0)
    endpoint = Endpoint(lambda: None, ServerSettings(listen), Access.of(listen, KeyFile(tmp_path / "k"), **options))
    endpoint.stop()


def test_15_without_keys_only_where_that_is_asked_for(make_endpoint):
    endpoint = make_endpoint(ServerSettings(ListenSettings(host="0.0.0.0", no_auth=True)))
    with httpx.Client(base_url=endpoint.url, trust_env=False) as client:
        assert client.get("/models").status_code == 200


def test_16_a_preflight_runs_nothing_and_counts_for_nothing(make_endpoint, llm):
    from workbench.server.settings import RateLimits

    settings = ServerSettings(
        ListenSettings(cors_origins=("https://app.example",)), rates=RateLimits(requests_per_minute=2)
    )
    endpoint = make_endpoint(settings)
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    before = llm.stats().requests_total
    with http_client(endpoint, None) as client:
        for _ in range(5):
            assert client.options("/v1/chat/completions", headers=asked).status_code == 200
        foreign = {**asked, "origin": "https://evil.example"}
        assert client.options("/v1/chat/completions", headers=foreign).status_code == 400
    assert llm.stats().requests_total == before
    with http_client(endpoint) as client:
        statuses = [client.post("/v1/chat/completions", json=chat(model=MODEL)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
