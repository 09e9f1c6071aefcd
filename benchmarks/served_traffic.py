"""Clients of an endpoint, as benchmarks/server.py needs them: raw sockets, so that they cost little beside the server.

Every function is one job of a client process and gives plain values.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


@dataclass(frozen=True)
class Address:
    """Where the endpoint is, and a key for it."""

    port: int
    key: str


@dataclass
class Reply:
    """One answer. Times are seconds since the request was written, to the first byte and to the first text."""

    status: int
    body: bytes
    first_byte_s: float
    first_text_s: float | None


def stream_at_once(address: Address, bodies: list[dict]) -> dict[str, float]:
    """Stream all bodies at the same time: tokens that came, and seconds from the first request to the last byte."""

    async def run() -> dict[str, float]:
        started = time.perf_counter()
        replies = await asyncio.gather(*(_post(address, "/v1/completions", _streamed(body)) for body in bodies))
        seconds = time.perf_counter() - started
        return {"tokens": sum(_streamed_tokens(reply.body) for reply in replies), "seconds": seconds}

    return asyncio.run(run())


def stream_one(address: Address, body: dict) -> dict[str, float]:
    """Stream one body on an idle server: seconds until its first byte, and until its first piece of text."""
    reply = asyncio.run(_post(address, "/v1/completions", _streamed(body)))
    return {"first_byte_s": reply.first_byte_s, "first_text_s": reply.first_text_s}


class Vanishing:
    """Clients that have asked and will not wait for the answer; every second one does not stream."""

    def __init__(self, address: Address, count: int, body: dict) -> None:
        self._address, self._count, self._body = address, count, body
        self._writers: list[asyncio.StreamWriter] = []

    async def ask(self) -> None:
        """Open the connections and send the requests."""
        for number in range(self._count):
            _, writer = await asyncio.open_connection("127.0.0.1", self._address.port)
            body = _streamed(self._body) if number % 2 else self._body
            writer.write(_request(self._address, "/v1/completions", body))
            await writer.drain()
            self._writers.append(writer)

    def vanish(self) -> None:
        """Break all connections, without a word."""
        for writer in self._writers:
            writer.transport.abort()


def vanish(address: Address, count: int, body: dict, stay_s: float) -> float:
    """Have `count` clients ask, and leave together after `stay_s`: that moment, on the machine's monotonic clock."""

    async def run() -> float:
        clients = Vanishing(address, count, body)
        await clients.ask()
        await asyncio.sleep(stay_s)
        left_s = time.monotonic()
        clients.vanish()
        await asyncio.sleep(0.05)
        return left_s

    return asyncio.run(run())


def beside_flood(calm: Address, flooding: Address, num_flooding: int, num_calm: int) -> list[float]:
    """Seconds that each of `num_calm` short requests takes, one after the other, while as many clients of another key
    as `num_flooding` ask for ten answers each, again and again."""
    short = {"prompt": "Hi", "max_tokens": 1}
    many = {"prompt": "Hi", "max_tokens": 2, "n": 10, "ignore_eos": True}

    async def keep_asking() -> None:
        while True:
            await _post(flooding, "/v1/completions", many)

    async def run() -> list[float]:
        await _post(calm, "/v1/completions", short)
        floods = [asyncio.create_task(keep_asking()) for _ in range(num_flooding)]
        await asyncio.sleep(1.0)
        times_s = []
        for _ in range(num_calm):
            started = time.perf_counter()
            reply = await _post(calm, "/v1/completions", short)
            assert reply.status == 200, reply.body
            times_s.append(time.perf_counter() - started)
        for flood in floods:
            flood.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        return times_s

    return asyncio.run(run())


def mixed_load(address: Address, duration_s: float, num_clients: int = 12) -> dict[str, int]:
    """Chats, streams, scored prompts, structures and WebSockets for a while, of which every fourth is left early.

    Counts by kind what was answered, what was left on purpose, and what got no answer or a wrong one.
    """

    async def run() -> dict[str, int]:
        counts: Counter[str] = Counter()
        end_s = time.monotonic() + duration_s
        await asyncio.gather(*(_one_user(address, number, end_s, counts) for number in range(num_clients)))
        return dict(counts)

    return asyncio.run(run())


async def _one_user(address: Address, number: int, end_s: float, counts: Counter[str]) -> None:
    rng = random.Random(number)
    while time.monotonic() < end_s:
        kind = rng.choice(("chat", "chat_stream", "completion", "score", "json", "tool", "socket", "bad"))
        work = _socket(address, rng) if kind == "socket" else _exchange(address, kind, rng)
        if kind != "bad" and rng.random() < 0.25:
            await _leave_early(work, rng.uniform(0.01, 1.5))
            counts["left_on_purpose"] += 1
            continue
        try:
            problem = await asyncio.wait_for(work, 120)
        except (OSError, TimeoutError, ConnectionClosed, ValueError, asyncio.IncompleteReadError) as error:
            counts[f"without_an_answer:{kind}:{type(error).__name__}"] += 1
            continue
        counts[f"wrong:{kind}:{problem}" if problem else f"answered:{kind}"] += 1


async def _leave_early(work: Awaitable[str], after_s: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=after_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


_WORDS = "river stone cloud garden engine paper winter silver morning bridge letter mountain window candle".split()


async def _exchange(address: Address, kind: str, rng: random.Random) -> str:
    """One request of this kind; what is wrong with its answer, "" for nothing."""
    words = " ".join(rng.choices(_WORDS, k=rng.randint(3, 60)))
    path, body, is_right = _ask(kind, words, rng)
    reply = await _post(address, path, body)
    if reply.status != (400 if kind == "bad" else 200):
        return f"{reply.status} {reply.body[:200].decode(errors='replace')}"
    return "" if is_right(reply.body) else "not what was asked for"


def _ask(kind: str, words: str, rng: random.Random) -> tuple[str, dict, Callable[[bytes], bool]]:
    """Path and body of a request, and what its answer must be."""
    chat, completions = "/v1/chat/completions", "/v1/completions"
    asked = {"messages": [{"role": "user", "content": f"Write about {words}."}], "max_tokens": rng.randint(4, 48)}
    if kind == "chat":
        return chat, asked, lambda body: bool(json.loads(body)["choices"])
    if kind == "chat_stream":
        streamed = {**asked, "stream": True, "n": rng.randint(1, 2)}
        return chat, streamed, lambda body: body.rstrip().endswith(b"data: [DONE]")
    if kind == "completion":
        prompts = {"prompt": [words, words[:20]], "max_tokens": asked["max_tokens"]}
        return completions, prompts, lambda body: len(json.loads(body)["choices"]) == 2
    if kind == "score":
        scored = {"prompt": words, "max_tokens": 0, "echo": True, "logprobs": 1}
        return completions, scored, lambda body: json.loads(body)["choices"][0]["text"] == words
    if kind == "json":
        schema = {"type": "object", "properties": {rng.choice(_WORDS): {"type": "integer"}}}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        return chat, {**asked, "response_format": form}, lambda body: True
    if kind == "tool":
        parameters = {"type": "object", "properties": {"x": {"type": "string"}}}
        tool = {"type": "function", "function": {"name": rng.choice(_WORDS), "parameters": parameters}}
        return chat, {**asked, "tools": [tool], "tool_choice": "required"}, lambda body: True
    return chat, {"messages": [], "max_tokens": -1}, lambda body: True


async def _socket(address: Address, rng: random.Random) -> str:
    headers = {"Authorization": f"Bearer {address.key}"}
    url = f"ws://127.0.0.1:{address.port}/v1/stream"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send(json.dumps({"prompt": " ".join(rng.choices(_WORDS, k=8)), "max_tokens": rng.randint(4, 48)}))
        async for frame in socket:
            if frame == "[END]":
                return ""
            if frame.startswith('{"error"'):
                return frame[:200]
    return "closed before the end"


def _streamed(body: dict) -> dict:
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def _streamed_tokens(stream: bytes) -> int:
    usage = [line for line in stream.split(b"\n") if line.startswith(b"data: {") and b'"usage":{' in line]
    return json.loads(usage[-1].removeprefix(b"data: "))["usage"]["completion_tokens"]


def _request(address: Address, path: str, body: dict) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {address.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


async def _post(address: Address, path: str, body: dict) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port, limit=2**24)
    try:
        started = time.perf_counter()
        writer.write(_request(address, path, body))
        head = await reader.readuntil(b"\r\n\r\n")
        first_byte_s, first_text_s = time.perf_counter() - started, None
        pieces = []
        is_chunked = b"transfer-encoding: chunked" in head.lower()
        while piece := await (_read_chunk(reader) if is_chunked else reader.read(2**16)):
            if first_text_s is None and b'"text":"' in piece:
                first_text_s = time.perf_counter() - started
            pieces.append(piece)
        return Reply(int(head.split(b" ", 2)[1]), b"".join(pieces), first_byte_s, first_text_s)
    finally:
        writer.close()


async def _read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk's content; empty for the last one. Raises IncompleteReadError for a stream without its end."""
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]
