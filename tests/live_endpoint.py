"""An endpoint over a loaded model with known keys, and what its tests say to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx

from workbench import LlamaGPU
from workbench.server.access import Access
from workbench.server.endpoint import Endpoint
from workbench.server.keys import KeyFile, KeyRing, NewKey, Scope, static_key
from workbench.server.model_host import ModelHost
from workbench.server.settings import ServerSettings
from workbench.session import Session

USE_KEY = "use-key-of-the-tests"
ADMIN_KEY = "admin-key-of-the-tests"
MODEL = "embedded-smollm2-135m-instruct"


def start_endpoint(
    llm: LlamaGPU,
    settings: ServerSettings | None = None,
    *,
    key_file: KeyFile | None = None,
    extra_keys: tuple[NewKey, ...] = (),
    session: Session | None = None,
    may_change: bool = False,
) -> Endpoint:
    """An endpoint over `llm` with one use and one admin key."""
    settings = settings or ServerSettings()
    settings = replace(settings, listen=replace(settings.listen, port=0))
    use, admin = static_key("use", Scope.USE, USE_KEY), static_key("admin", Scope.ADMIN, ADMIN_KEY)
    ring = None if settings.listen.no_auth else KeyRing([k.key for k in (use, admin, *extra_keys)], key_file)
    if session is None:
        session = Session()
        session.adopt(llm)
    host = ModelHost.factory(session, may_change=may_change, drain_s=settings.queue.drain_s)
    return Endpoint(host, settings, Access(ring, use)).start()


def http_client(endpoint: Endpoint, key: str | None = USE_KEY, **options: object) -> httpx.Client:
    """A plain client for the endpoint's root, with a key."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    base_url = endpoint.url.removesuffix("/v1")
    # Without TLS: reading the authorities' certificates takes longer than most requests.
    return httpx.Client(base_url=base_url, headers=headers, timeout=60, trust_env=False, verify=False, **options)


def wait_until_idle(llm: LlamaGPU, timeout_s: float = 60.0) -> float:
    """Seconds until nothing runs or waits in the engine; fails after `timeout_s`."""
    started_s = time.monotonic()
    while time.monotonic() - started_s < timeout_s:
        stats = llm.stats()
        if stats.num_running == stats.num_waiting == 0:
            return time.monotonic() - started_s
        time.sleep(0.01)
    raise AssertionError(f"the engine is still busy: {llm.stats()}")


def num_whole_answers(llm: LlamaGPU) -> int:
    """How many answers came to their asked length since the model was loaded."""
    return llm.stats().finished_by_reason.get("length", 0)


def chat(content: str = "Say hello.", **fields: Any) -> dict[str, Any]:
    """The body of a short chat request."""
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0, **fields}


@contextmanager
def streaming(client: httpx.Client, body: dict[str, Any], path: str = "/v1/completions") -> Iterator[Iterator[str]]:
    """The lines of a stream that has begun: its first event has come. Leaving the block breaks the connection."""
    with client.stream("POST", path, json={**body, "stream": True}) as reply:
        lines = reply.iter_lines()
        assert "error" not in next(lines), reply.status_code
        yield lines
