"""A client that leaves frees its place in the batch within two steps of the engine, streaming or not."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
from live_endpoint import USE_KEY
from step_gate import wait_for
from websockets.sync.client import connect


def http_client_that_left(endpoint, path: str, body: dict) -> Callable[[], None]:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {USE_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", endpoint.port))
    client.sendall(head.encode() + content)
    return client.close


def socket_client_that_left(endpoint, path: str, body: dict) -> Callable[[], None]:
    headers = {"Authorization": f"Bearer {USE_KEY}"}
    # Left without its end: this client does not say goodbye.
    client = connect(f"ws://127.0.0.1:{endpoint.port}{path}", additional_headers=headers, proxy=None).__enter__()
    client.send(json.dumps(body))
    return lambda: client.socket.shutdown(socket.SHUT_RDWR)


PROMPT = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True}
MESSAGES = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 900, "ignore_eos": True}


@pytest.mark.parametrize(
    ("path", "body", "ask"),
    [
        ("/v1/completions", PROMPT, http_client_that_left),
        ("/v1/completions", {**PROMPT, "stream": True}, http_client_that_left),
        ("/v1/completions", {**PROMPT, "prompt": ["One", "Two"], "n": 2}, http_client_that_left),
        ("/v1/chat/completions", MESSAGES, http_client_that_left),
        ("/v1/chat/completions", {**MESSAGES, "stream": True}, http_client_that_left),
        ("/v1/responses", {"input": "Tell me a story.", "max_output_tokens": 900}, http_client_that_left),
        ("/v1/stream", PROMPT, socket_client_that_left),
    ],
    ids=["completion", "completion-stream", "four-answers", "chat", "chat-stream", "response", "websocket"],
)
def test_its_place_is_free_within_two_steps(endpoint, llm, gate, path, body, ask):
    leave = ask(endpoint, path, body)
    wait_for(lambda: gate.engine.has_work)
    gate.allow(3)
    assert gate.engine.scheduler.running, "it has begun"
    leave()
    wait_for(lambda: not endpoint._services.servings)
    at_leaving = gate.num_done
    while gate.engine.has_work:
        gate.allow(1)
        assert gate.num_done - at_leaving <= 2
    gate.engine.check_integrity()
