"""A small reverse proxy as a hub has it: takes a prefix off the path, and passes streams on as they come.

Like jupyter-server-proxy it knows one by what the call accepts, and keeps any other answer back until its end.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@contextmanager
def reverse_proxy(target: str, prefix: str, *, says_prefix: bool) -> Iterator[str]:
    """Serves `target` under `prefix` (such as /user/ada/proxy/8000) and gives the address to open.

    With `says_prefix` it sends the header by which jupyter-server-proxy tells the application of its prefix. Anything
    outside of the prefix is a 404, as it would be on a hub.
    """
    client = httpx.AsyncClient(base_url=target, timeout=None, trust_env=False)

    async def forward(request: Request) -> Response:
        path = request.url.path
        if not path.startswith(prefix):
            return PlainTextResponse(f"{path} is outside of {prefix}", 404)
        headers = [(k, v) for k, v in request.headers.raw if k.decode().lower() not in _HOP_BY_HOP]
        headers.append((b"host", request.headers["host"].encode()))
        if says_prefix:
            headers.append((b"x-forwarded-context", prefix.encode()))
        url = httpx.URL(path=path[len(prefix) :] or "/", query=request.url.query.encode())
        sent = client.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await client.send(sent, stream=True)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}

        if request.headers.get("accept") != "text/event-stream":
            whole = b"".join([piece async for piece in answer.aiter_raw()])
            await answer.aclose()
            return Response(whole, answer.status_code, kept)

        async def pieces():
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), answer.status_code, kept)

    app = Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST", "HEAD", "DELETE", "OPTIONS"])])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}/"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
