"""The end of a request that is cancelled while it is under way: what the request held is given back all the same."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from workbench.engine import SamplingParams
from workbench.server.caller import Call
from workbench.server.serving import Job, Serving


def test_a_cancelled_end_gives_everything_back() -> None:
    given_back: list[str] = []
    services = SimpleNamespace(settings=SimpleNamespace(queue=SimpleNamespace(share_prefixes=True)), servings=set())

    async def run_until_cancelled_twice(was_cancelled: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()
            await asyncio.Event().wait()

    async def leave() -> None:
        job = Job(lambda: [[1]], SamplingParams(), param="prompt")
        serving = Serving(services, Call("request", "127.0.0.1"), SimpleNamespace(), job)
        services.servings.add(serving)
        serving._stack.callback(given_back.append, "its place")
        was_cancelled = asyncio.Event()
        serving._runs.append(asyncio.ensure_future(run_until_cancelled_twice(was_cancelled)))
        # So that there is something to cancel.
        await asyncio.sleep(0)
        end = asyncio.ensure_future(serving.close())
        await was_cancelled.wait()
        end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await end

    asyncio.run(asyncio.wait_for(leave(), 60))
    assert given_back == ["its place"] and not services.servings
