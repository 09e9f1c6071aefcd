"""The WebSocket: pieces and marks, several prompts, errors that leave it open, cancelling, and leaving."""

from __future__ import annotations

import asyncio
import json
from socket import create_connection
from urllib.parse import urlsplit

import pytest
from live_endpoint import USE_KEY, num_whole_answers, wait_until_idle
from step_gate import wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from workbench.server.socket_session import SocketSession

HEADERS = {"authorization": f"Bearer {USE_KEY}"}


def socket(endpoint, **headers):
    url = endpoint.url.replace("http://", "ws://") + "/stream"
    return connect(url, additional_headers=HEADERS | headers, proxy=None, open_timeout=60)


def until_end(ws):
    frames = []
    while (frame := ws.recv(timeout=60)) != "[END]":
        frames.append(frame)
    return frames


def test_pieces_then_end_and_the_next_prompt(endpoint, llm):
    with socket(endpoint) as ws:
        for prompt in ("The capital of France is", "One, two, three,"):
            ws.send(json.dumps({"prompt": prompt, "max_tokens": 4, "temperature": 0}))
            pieces = until_end(ws)
            assert len(pieces) > 1
            assert "".join(pieces) == llm.infer(prompt, max_tokens=4)


def test_documented_defaults_and_names(endpoint):
    asking_for_nothing = {"tools": None, "tool_choice": "none", "logprobs": False, "top_logprobs": None, "echo": False}
    with socket(endpoint) as ws:
        ws.send(json.dumps({"prompt": "Hi", "model_name": "embedded-smollm2-135m-instruct", "stop": ["e"]}))
        until_end(ws)
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1, "best_of": 1, "suffix": None, **asking_for_nothing}))
        until_end(ws)
        ws.send(json.dumps({"prompt": "Hi", "logprobs": True}))
        assert json.loads(ws.recv(timeout=60))["error"]["param"] == "logprobs"


def test_a_cancel_after_the_answer_changes_nothing(endpoint):
    with socket(endpoint) as ws:
        ws.send(json.dumps({"cancel": True}))
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1}))
        assert not any("error" in frame for frame in until_end(ws))


def test_a_cancel_that_meets_the_end_of_the_answer_changes_nothing(endpoint, monkeypatch):
    send = SocketSession._send

    async def send_after_a_cancel(session, text):
        if text == "[END]":
            await asyncio.to_thread(ws.send, json.dumps({"cancel": True}))
            await asyncio.wait({session._receive()})
            # The session has its turns to act on it before the client can have read the end.
            for _ in range(20):
                await asyncio.sleep(0)
        await send(session, text)

    monkeypatch.setattr(SocketSession, "_send", send_after_a_cancel)
    with socket(endpoint) as ws:
        for _ in range(2):
            ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1}))
            while (frame := ws.recv(timeout=60)) != "[END]":
                assert not frame.startswith('{"error"')


def test_the_line_of_the_log_counts_the_tokens_of_every_prompt(endpoint, llm, caplog):
    caplog.set_level("INFO", "workbench.server.access")
    prompts = {"Hi": 3, "One, two, three,": 2}
    with socket(endpoint, **{"x-request-id": "two-prompts"}) as ws:
        for prompt, max_tokens in prompts.items():
            ws.send(json.dumps({"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}))
            until_end(ws)
    # Written when the server has seen the client leave.
    wait_for(lambda: any('"two-prompts"' in message for message in caplog.messages))
    (line,) = [json.loads(message) for message in caplog.messages if '"two-prompts"' in message]
    assert line["prompt_tokens"] == sum(len(llm.tokenizer.encode(prompt)) for prompt in prompts)
    assert line["generated_tokens"] == sum(prompts.values())


@pytest.mark.parametrize("path", ["/nope", "/v1/stream/", "/v1/models"])
def test_no_socket_elsewhere(endpoint, path):
    url = urlsplit(endpoint.url)
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://{url.netloc}{path}", additional_headers=HEADERS, proxy=None, open_timeout=60)
    assert caught.value.response.status_code == 404
    assert "nothing at this path" in json.loads(caught.value.response.body)["error"]["message"]


def test_a_broken_handshake_is_refused_in_the_form_of_every_error(endpoint):
    url = urlsplit(endpoint.url)
    with create_connection((url.hostname, url.port), timeout=60) as raw:
        lines = (
            "GET /v1/stream HTTP/1.1",
            f"Host: {url.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
        )
        raw.sendall("\r\n".join((*lines, "", "")).encode())
        head, _, body = b"".join(iter(lambda: raw.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400") and b"application/json" in head
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_handshake" and "Sec-WebSocket-Key" in error["message"]


def test_json_frames_cannot_be_mistaken(endpoint, llm):
    with socket(endpoint) as ws:
        ws.send(
            json.dumps(
                {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "format": "json", "temperature": 0}
            )
        )
        frames = []
        while "done" not in (frame := json.loads(ws.recv(timeout=60))):
            frames.append(frame)
    assert "".join(f["text"] for f in frames) == llm.chat("Hi", max_tokens=3)
    assert frame == {
        "done": True,
        "finish_reason": "length",
        "prompt_tokens": len(llm.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}])),
        "completion_tokens": 3,
    }


@pytest.mark.parametrize(
    "frame", ["nonsense", "[]", "{}", '{"prompt": ""}', '{"prompt": "x", "foo": 1}', '{"prompt": NaN}']
)
def test_a_wrong_frame_is_answered_and_the_socket_stays(endpoint, frame):
    with socket(endpoint) as ws:
        ws.send(frame)
        assert json.loads(ws.recv(timeout=60))["error"]["type"] == "invalid_request_error"
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1}))
        until_end(ws)


def test_cancelling_stops_the_answer_and_the_socket_stays(endpoint, llm):
    before = num_whole_answers(llm)
    with socket(endpoint) as ws:
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 900, "ignore_eos": True}))
        ws.recv(timeout=60)
        ws.send(json.dumps({"prompt": "too early"}))
        ws.send(json.dumps({"cancel": True}))
        codes = []
        while "cancelled" not in codes:
            frame = ws.recv(timeout=60)
            if frame.startswith('{"error"'):
                codes.append(json.loads(frame)["error"]["code"])
        assert codes == ["busy", "cancelled"]
        wait_until_idle(llm)
        assert num_whole_answers(llm) == before
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 1}))
        until_end(ws)


def test_leaving_stops_the_answer(endpoint, llm):
    before = num_whole_answers(llm)
    with socket(endpoint) as ws:
        ws.send(json.dumps({"prompt": "Hi", "max_tokens": 900, "ignore_eos": True}))
        ws.recv(timeout=60)
    wait_until_idle(llm)
    assert num_whole_answers(llm) == before


def test_frames_that_are_not_text_end_the_socket(endpoint):
    with socket(endpoint) as ws:
        ws.send(b"\x00")
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=60)
