"""Abuse cases 27 to 32: bodies, headers, JSON, content types, what errors repeat, and request ids."""

from __future__ import annotations

import gzip
import json
import logging
import re
import time

import psutil
import pytest
from live_endpoint import USE_KEY, chat, http_client
from raw_http import head, open_socket, post_json, read_reply, send

from workbench.server.settings import ServerSettings, WireLimits

PATH = "/v1/chat/completions"
JSON = "Content-Type: application/json"


def is_alive(endpoint):
    with http_client(endpoint) as client:
        return client.get("/health").status_code == client.post(PATH, json=chat()).status_code == 200


@pytest.fixture
def small(make_endpoint):
    """An endpoint that takes bodies of at most 64 KiB."""
    return make_endpoint(ServerSettings(wire=WireLimits(max_body_bytes=64 * 1024)))


def test_27_a_body_that_is_announced_too_large_is_refused_before_it_comes(small, endpoint):
    for server, size in ((small, 64 * 1024 + 1), (endpoint, 33 * 2**20)):
        reply = send(server, head("POST", PATH, JSON, f"Content-Length: {size}"))
        assert reply.status == 413 and reply.error["code"] == "body_too_large"
        assert reply.headers["connection"] == "close"


def test_27_a_body_without_an_end_is_refused_where_the_limit_is(small):
    before = psutil.Process().memory_info().rss
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with open_socket(small) as connection:
        connection.sendall(head("POST", PATH, JSON, "Transfer-Encoding: chunked"))
        try:
            for _ in range(500):
                connection.sendall(piece)
        except ConnectionError:
            pass
        assert read_reply(connection).status == 413
    assert psutil.Process().memory_info().rss - before < 20 * 2**20
    assert is_alive(small)


def test_27_whoever_sends_all_of_it_first_still_sees_why_it_was_refused(small):
    """A client that reads only after it has sent: the answer must not be lost with the connection."""
    body = b" " * 20 * 2**20
    for key, status in ((USE_KEY, 413), ("wrong-key", 401)):
        reply = post_json(small, PATH, body, key=key)
        assert reply.status == status and reply.error["message"]


@pytest.mark.parametrize("announced", ["-1", "abc", "1e3", "99999999999999999999999", "5, 6"])
def test_27_a_content_length_that_is_no_length_is_refused(endpoint, announced):
    reply = send(endpoint, head("POST", PATH, JSON, f"Content-Length: {announced}") + b"{}")
    assert reply.status in (400, 413)
    assert is_alive(endpoint)


def test_27_more_than_was_announced_is_not_part_of_the_body(endpoint):
    body = json.dumps(chat()).encode()
    reply = send(endpoint, head("POST", PATH, JSON, f"Content-Length: {len(body) - 5}") + body)
    assert reply.status == 400 and reply.error["code"] == "invalid_json"
    assert is_alive(endpoint)


def test_27_both_lengths_at_once_are_refused(endpoint):
    both = ("Content-Length: 5", "Transfer-Encoding: chunked")
    reply = send(endpoint, head("POST", PATH, JSON, *both) + b"0\r\n\r\n")
    assert reply.status in (0, 400)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
def test_27_compressed_bodies_are_refused_unread(endpoint, encoding):
    reply = post_json(endpoint, PATH, gzip.compress(b" " * 2**20), f"Content-Encoding: {encoding}")
    assert reply.status == 415 and reply.error["code"] == "unsupported_encoding"


@pytest.mark.parametrize("key", [None, "wrong-key"])
def test_27_without_a_key_no_body_is_read(endpoint, key):
    reply = send(endpoint, head("POST", PATH, JSON, "Content-Length: 1000000", key=key))
    assert reply.status == 401


def test_28_headers_without_an_end_are_refused(endpoint):
    before = psutil.Process().memory_info().rss
    many = [f"X-{i}: y" for i in range(10_000)]
    for headers in (["X-Long: " + "x" * 10 * 2**20], many):
        reply = send(endpoint, head("GET", "/health", *headers))
        assert reply.status in (0, 400, 431)
    assert psutil.Process().memory_info().rss - before < 30 * 2**20
    assert is_alive(endpoint)


def test_28_what_is_no_http_gets_an_error_in_the_apis_form(endpoint):
    reply = send(endpoint, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    assert reply.status == 400 and reply.error["code"] == "invalid_http"


DEEP = 20_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"text"',
        b"[]",
        b"7",
        b"true",
        b"[" * DEEP + b"]" * DEEP,
        b'{"messages":' + b'{"a":' * DEEP + b"1" + b"}" * (DEEP + 1),
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": Infinity}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": -Infinity}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "max_tokens": 2}',
        b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\\udc00\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "seed": 1' + b"0" * 400 + b"}",
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1' + b"0" * 320 + b"}",
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1' + b"0" * 5000 + b"}",
        b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"messages": [{"role": "user", "content": "a\x00b\x01"}]}',
        b"{'messages': []}",
        b'{"messages": [], }',
        b"\xef\xbb\xbf{}",
        '{"messages": []}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_29_what_is_not_a_json_object_is_a_400(endpoint, body):
    reply = post_json(endpoint, PATH, body)
    assert reply.status == 400, reply.body
    assert set(reply.error) == {"message", "type", "param", "code"}


def test_29_the_server_lives_on(endpoint):
    assert is_alive(endpoint)


@pytest.mark.parametrize("kind", [None, "text/html", "application/xml", "application/jsonx", "json", "*/*"])
def test_30_another_content_type_is_a_415(endpoint, kind):
    body = json.dumps(chat()).encode()
    headers = [f"Content-Length: {len(body)}", "Connection: close"] + ([f"Content-Type: {kind}"] if kind else [])
    reply = send(endpoint, head("POST", PATH, *headers) + body)
    assert reply.status == 415 and reply.error["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_30_json_in_any_spelling_is_fine(http, kind):
    reply = http.post(PATH, content=json.dumps(chat()), headers={"content-type": kind})
    assert reply.status_code == 200


SECRETIVE = "SECRET-TEXT-OF-THE-CALLER"
BAD_BODIES = [
    {"messages": SECRETIVE},
    {"messages": [{"role": SECRETIVE, "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": SECRETIVE}]}]},
    {**chat(), "temperature": SECRETIVE},
    {**chat(), "tool_choice": SECRETIVE},
    {**chat(), "response_format": {"type": SECRETIVE}},
    {**chat(), "stop": {SECRETIVE: 1}},
    {**chat(), "model": SECRETIVE},
    {**chat(), "logit_bias": {SECRETIVE: 1}},
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: str(body)[:50])
def test_31_errors_do_not_repeat_what_was_sent(http, body):
    reply = http.post(PATH, json=body)
    assert reply.status_code in (400, 404)
    message = reply.json()["error"]["message"]
    assert SECRETIVE not in message or reply.json()["error"]["param"] == f"logit_bias.{SECRETIVE}"
    assert len(reply.text) < 1200


def test_31_errors_are_bounded_and_say_nothing_of_the_machine(http):
    long = "x" * 100_000
    bodies = [{**chat(), long: 1}, {**chat(), "logit_bias": {long: 1}}, {**chat(), "model": long[:500]}]
    texts = [http.post(PATH, json=body).text for body in bodies]
    texts += [http.get(f"/{long[:2000]}").text, http.get("/v1/models/" + long[:2000]).text]
    for text in texts:
        assert len(text) < 1200
        assert not re.search(r"0x[0-9a-f]{6,}|Traceback|\.py|site-packages|/root/|/home/", text)


def test_31_an_unexpected_failure_is_a_500_without_its_cause(http, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("SECRET of the inside at /root/place")

    monkeypatch.setattr("workbench.server.routes.chat.chat_job", fail)
    reply = http.post(PATH, json=chat())
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error" and "SECRET" not in reply.text
    assert reply.headers["x-request-id"]


@pytest.fixture
def access_lines(caplog):
    """Gives the access log's lines, once there are as many as are waited for."""

    def read(count):
        started = time.monotonic()
        while time.monotonic() - started < 60:
            lines = [r.getMessage() for r in caplog.records if r.name == "workbench.server.access"]
            if len(lines) >= count:
                return lines
            time.sleep(0.01)
        raise AssertionError(f"{len(lines)} lines instead of {count}")

    with caplog.at_level(logging.INFO, "workbench.server.access"):
        yield read


@pytest.mark.parametrize("given", ["x" * 10_000, "a b", "a\tb", "\u00fc", '{"json": 1}', "a/b", "x" * 65, ""])
def test_32_a_strange_request_id_is_replaced(endpoint, given, access_lines):
    reply = send(endpoint, head("GET", "/health", f"X-Request-Id: {given}", "Connection: close"))
    assert reply.status == 200
    assert re.fullmatch(r"req-[0-9a-f]{32}", reply.headers["x-request-id"])
    while f'"{reply.headers["x-request-id"]}"' not in access_lines(1)[-1]:
        time.sleep(0.01)


def test_32_a_harmless_request_id_is_kept(http):
    assert http.get("/health", headers={"x-request-id": "my-id_1.2"}).headers["x-request-id"] == "my-id_1.2"


def test_32_no_path_can_forge_a_line_of_the_log(endpoint, access_lines):
    paths = ("/%0a%7b%22status%22:200%7d", "/%0d%0aINFO", "/" + "y" * 5000, "/%1b%5b2J", "/?q=%0aforged")
    for path in paths:
        send(endpoint, head("GET", path, "Connection: close"))
    for text in access_lines(len(paths)):
        assert text.isprintable() and len(text) < 1000
        assert json.loads(text)["status"] == 404
