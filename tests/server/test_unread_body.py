"""An answer that comes early ends only once the client has sent all of its request, or has had its time."""

from __future__ import annotations

import asyncio

import pytest

from workbench.server import unread_body
from workbench.server.unread_body import UnreadBody

START = {"type": "http.response.start", "status": 413, "headers": []}
LAST = {"type": "http.response.body", "body": b"no", "more_body": False}


def watched(pieces, sent, headers=((b"content-length", b"3"),)):
    """A request whose body comes in `pieces`; what is sent back is noted beside what was read."""

    async def receive():
        if not pieces:
            await asyncio.Event().wait()
        sent.append(piece := pieces.pop(0))
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        sent.append(message["type"] if "body" not in message else (message["body"], message["more_body"]))

    return UnreadBody({"headers": list(headers)}, receive, send)


async def answered(body):
    for message in (START, LAST):
        await body.send(message)


async def test_the_rest_is_thrown_away_before_the_answer_ends():
    sent = []
    await answered(watched([b"a", b"b", b"c"], sent))
    assert sent == ["http.response.start", (b"no", True), b"a", b"b", b"c", (b"", False)]


async def test_a_body_that_was_read_delays_nothing():
    sent = []
    body = watched([b"abc"], sent)
    await body.receive()
    await answered(body)
    assert sent == [b"abc", "http.response.start", (b"no", False)]


async def test_nor_does_a_request_without_a_body():
    sent = []
    await answered(watched([], sent, headers=()))
    assert sent == ["http.response.start", (b"no", False)]


@pytest.mark.parametrize("pieces", [[], [b"a", b""]])
async def test_who_goes_on_for_ever_is_not_waited_for(monkeypatch, pieces):
    monkeypatch.setattr(unread_body, "_LINGER_S", 0.01)
    sent = []
    body = watched(pieces, sent)
    if pieces:
        pieces.pop()
        monkeypatch.setattr(body, "receive", asyncio.Event().wait)
    await answered(body)
    assert sent[-1] == (b"", False)
