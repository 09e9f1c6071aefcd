"""Bytes that nobody would send: to the HTTP parser, to the JSON reader, and into a WebSocket."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_endpoint import USE_KEY, http_client
from raw_http import head, open_socket, post_json, read_reply
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from workbench.server.errors import ApiError
from workbench.server.json_body import parse_json

# The same examples in every run, so that a red test is red for everybody.
BOUNDED = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
BODY = b'{"prompt": "Hi", "max_tokens": 1}'
WHOLE = head(
    "POST", "/v1/completions", "Content-Type: application/json", f"Content-Length: {len(BODY)}", "Connection: close"
)
# Places where parsers have been fooled.
SPLICES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"\xff", b"../", b"%00", b"HTTP/1.1", b"?x=" + b"y" * 300),
        *(b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def _answered(endpoint, data: bytes) -> int:
    """The status, 0 for a connection that was closed; the sender says that nothing more will come."""
    with open_socket(endpoint) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(1)
        except OSError:
            pass  # refused before all of it was sent
        return read_reply(connection).status


@BOUNDED
@given(data=st.binary(max_size=400))
def test_bytes_that_are_no_request(endpoint, data: bytes) -> None:
    assert _answered(endpoint, data) in (0, 400, 404, 405, 421, 431)


@BOUNDED
@given(cuts=st.lists(st.tuples(st.integers(0, len(WHOLE)), SPLICES), min_size=1, max_size=3))
def test_requests_with_something_put_in_between(endpoint, cuts: list[tuple[int, bytes]]) -> None:
    """Right or wrong as it may be then, it is answered or closed, and never with a failure of the server."""
    data = WHOLE
    for at, splice in cuts:
        data = data[:at] + splice + data[at:]
    status = _answered(endpoint, data + BODY)
    assert status < 500, data


@BOUNDED
@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bodies_of_any_kind(endpoint, data: bytes) -> None:
    reply = post_json(endpoint, "/v1/completions", data)
    assert reply.status == 200 or (400 <= reply.status < 500 and reply.error["message"])


@settings(BOUNDED, max_examples=300)
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_what_the_reader_takes_is_what_json_means(text: str) -> None:
    try:
        value = parse_json(text)
    except ApiError as error:
        assert error.status_code == 400
    else:
        assert value == json.loads(text)


@settings(BOUNDED, max_examples=30)
@given(frames=st.lists(st.text(max_size=80) | JSON.map(json.dumps), min_size=1, max_size=4))
def test_frames_that_are_no_prompt_are_told_so_and_the_socket_stays(endpoint, frames: list[str]) -> None:
    url = endpoint.url.replace("http://", "ws://") + "/stream"
    headers = {"authorization": f"Bearer {USE_KEY}"}
    with connect(url, additional_headers=headers, proxy=None, open_timeout=60, close_timeout=20) as ws:
        for frame in frames:
            ws.send(frame)
            assert json.loads(ws.recv(timeout=60))["error"]["message"]
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1, "temperature": 0}))
        while ws.recv(timeout=60) != "[END]":
            pass


@settings(BOUNDED, max_examples=30)
@given(data=st.binary(min_size=2, max_size=120))
def test_bytes_that_are_no_frames_end_the_socket_and_nothing_else(endpoint, data: bytes) -> None:
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    with open_socket(endpoint, timeout_s=60) as connection:
        connection.sendall(head("GET", "/v1/stream", *upgrade))
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        try:
            connection.sendall(data)
            connection.shutdown(1)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass  # closed while we were still at it


def test_afterwards_it_serves_as_before(endpoint) -> None:
    with http_client(endpoint) as client:
        assert client.get("/health").json() == {"status": "ok"}
        reply = client.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 1})
        assert reply.status_code == 200, reply.text
    with pytest.raises(ConnectionClosed):
        url = endpoint.url.replace("http://", "ws://") + "/stream"
        headers = {"authorization": f"Bearer {USE_KEY}"}
        with connect(url, additional_headers=headers, proxy=None, open_timeout=60) as ws:
            ws.send(b"bytes")
            ws.recv(timeout=60)
