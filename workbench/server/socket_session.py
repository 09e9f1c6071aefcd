"""One WebSocket: prompts one after the other, each answered piece by piece, until somebody leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from pydantic_core import to_json

from workbench.errors import WorkbenchError
from workbench.server.caller import call_of
from workbench.server.chat_messages import Conversation
from workbench.server.errors import ApiError, api_error, invalid, validation_error
from workbench.server.json_body import parse_json
from workbench.server.key_watch import CHECK_S, may_go_on
from workbench.server.protocol.stream import CancelRequest, EndFrame, StreamRequest, TextFrame
from workbench.server.replies.answer import AnswerReader
from workbench.server.served_model import ServedModel
from workbench.server.services import Services
from workbench.server.serving import Job, Serving

__all__ = ["SocketSession"]

_END = "[END]"


class _Goodbye(Exception):
    """The server ends the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SocketSession:
    """Serves an accepted key's socket. Frames that come while an answer is given may cancel it, and nothing else."""

    def __init__(self, socket: WebSocket, services: Services) -> None:
        self._socket = socket
        self._services = services
        self._call = call_of(socket.scope)
        self._wire = services.settings.wire
        self._is_json = False
        self._is_answered = False
        self._receiving: asyncio.Future[str] | None = None

    async def run(self) -> None:
        """Accept, answer prompt after prompt, and close."""
        await self._socket.accept()
        self._services.metrics.socket_opened()
        try:
            while True:
                frame = await self._next_frame()
                # The answer that it was meant for has ended in the same moment: there is nothing left to do.
                if not _is_cancel(frame):
                    await self._answer(frame)
        except WebSocketDisconnect:
            pass
        except _Goodbye as goodbye:
            await self._close(goodbye.code, goodbye.reason)
        except TimeoutError:
            await self._close(1008, "the answer was not read")
        finally:
            self._services.metrics.socket_closed()
            if self._receiving is not None:
                self._receiving.cancel()
                await asyncio.gather(self._receiving, return_exceptions=True)

    async def _close(self, code: int, reason: str) -> None:
        # The client may have left in the same moment.
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(code, reason)

    async def _next_frame(self) -> str:
        """The next text frame. A silent socket is ended when its time is over, or its key is taken away."""
        receiving, waited_s = self._receive(), 0.0
        while True:
            tick_s = min(CHECK_S, self._wire.socket_idle_timeout_s)
            await asyncio.wait({receiving}, timeout=tick_s)
            self._check_key()
            if receiving.done():
                return self._taken()
            waited_s += tick_s
            if waited_s >= self._wire.socket_idle_timeout_s:
                raise _Goodbye(1000, "no prompt came")

    def _receive(self) -> asyncio.Future[str]:
        """The next frame as it will come. Asking again gives the same one until it is taken, so none is lost."""
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._read_frame())
        return self._receiving

    def _taken(self) -> str:
        receiving, self._receiving = self._receive(), None
        return receiving.result()

    async def _read_frame(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text: str | None = message.get("text")
        if text is None:
            raise _Goodbye(1003, "only text frames are understood")
        return text

    def _check_key(self) -> None:
        if not may_go_on(self._services, self._call):
            raise _Goodbye(1008, "the key is no longer valid")
        if self._services.is_draining:
            raise _Goodbye(1012, "the server is stopping")

    async def _answer(self, frame: str) -> None:
        """Answer one frame; what is wrong with it is told in an error frame, and the socket stays."""
        try:
            await self._services.rates.count_request(self._call)
            body = _parsed(frame)
            self._is_json = body.format == "json"
            model = self._services.host.served(body.model_id, body.revision)
            await self._while_listening(self._generate(model, body))
        except (ApiError, WorkbenchError) as error:
            await self._send(to_json(api_error(error).body).decode())

    async def _while_listening(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until it is done, or the client cancels it or leaves."""
        self._is_answered = False
        task = asyncio.ensure_future(work)
        try:
            while True:
                first: set[asyncio.Future[Any]] = {task, self._receive()}
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
                if self._is_answered:
                    # The frame comes after the end, and is for what follows.
                    return await task
                if _is_cancel(self._taken()):
                    raise invalid("the answer was cancelled", code="cancelled")
                await self._send(to_json(_BUSY.body).decode())
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _generate(self, model: ServedModel, body: StreamRequest) -> None:
        serving = await Serving.start(self._services, self._call, model, _job(body, model))
        try:
            reader = AnswerReader(model, serving.job.params)
            finish_reason = ""
            async for _, chunk in serving:
                part = reader.read(chunk)
                finish_reason = part.finish_reason or ""
                if part.text:
                    await self._send(TextFrame(text=part.text).model_dump_json() if self._is_json else part.text)
            end = EndFrame(
                finish_reason=finish_reason,
                prompt_tokens=serving.num_prompt_tokens,
                completion_tokens=serving.num_generated_tokens,
            )
            self._is_answered = True
            await self._send(end.model_dump_json() if self._is_json else _END)
        finally:
            await serving.close()

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(self._wire.send_timeout_s):
            await self._socket.send_text(text)


_BUSY = invalid('an answer is being given: wait for its end, or send {"cancel": true}', code="busy")


def _parsed(frame: str) -> StreamRequest:
    value = parse_json(frame)
    try:
        return StreamRequest.model_validate(value)
    except ValidationError as error:
        raise validation_error([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from error


def _is_cancel(frame: str) -> bool:
    try:
        CancelRequest.model_validate(parse_json(frame))
    except (ApiError, ValidationError):
        return False
    return True


def _job(body: StreamRequest, model: ServedModel) -> Job:
    params = body.sampling(max_tokens=body.max_tokens)
    if body.messages is None:
        prompt = body.prompt
        assert prompt is not None  # one of the two is given
        return Job(lambda: [model.encode_text(prompt)], params, "prompt", body.structure_param)
    conversation = Conversation(tuple(message.message() for message in body.messages))
    return Job(lambda: [model.encode_chat(conversation)], params, "messages", body.structure_param)
