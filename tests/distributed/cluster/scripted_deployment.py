"""A Serve deployment without Ray: replicas that say what a test tells them, and die when told to."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

from workbench.engine.messages import Chunk, EngineStats, Request, Usage
from workbench.engine.sequence import FinishReason


class ReplicaDied(Exception):
    """As RayActorError: the process behind a call is gone."""


class ScriptedStream:
    """What one call of `generate` gives, until `finish` or `die`."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.was_cancelled = threading.Event()
        self._items: asyncio.Queue = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def say(self, *token_ids: int) -> None:
        for token_id in token_ids:
            self._put(Chunk(self.request.request_id, 0, text=chr(token_id), token_ids=(token_id,)))

    def finish(self) -> None:
        usage = Usage(1, 1, 0, submitted_s=5e9, first_token_s=5e9, finished_s=5e9)
        for index in range(self.request.params.n):
            end = Chunk(self.request.request_id, index, finish_reason=FinishReason.STOP, usage=usage)
            self._put(end)
        self._put(None)

    def fail(self, error: BaseException) -> None:
        self._put(error)

    def cancel(self) -> None:
        self.was_cancelled.set()

    async def __aiter__(self):
        while (item := await self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _put(self, item: object) -> None:
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class ScriptedDeployment:
    """As a DeploymentHandle; every call is noted."""

    def __init__(self) -> None:
        self.streams: list[ScriptedStream] = []
        self.stats = [EngineStats(requests_total=2), EngineStats(requests_total=3)]
        self._changed = threading.Condition()

    def options(self, *, stream: bool, method_name: str) -> SimpleNamespace:
        assert stream and method_name == "generate"
        return SimpleNamespace(remote=self._generate)

    def broadcast(self, method_name: str) -> SimpleNamespace:
        async def results() -> list[EngineStats]:
            return self.stats

        return SimpleNamespace(results_async=results)

    def stream(self, number: int) -> ScriptedStream:
        """The `number`th call, once it was made."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.streams) > number, 60)
            return self.streams[number]

    def _generate(self, request: Request) -> ScriptedStream:
        with self._changed:
            self.streams.append(ScriptedStream(request))
            self._changed.notify_all()
            return self.streams[-1]
