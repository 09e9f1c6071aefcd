"""The Responses API: what a request asks of the engine, and the engine's chunks as items or as a stream of events."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any, Literal

from fastapi.sse import format_sse_event
from pydantic_core import to_json

from workbench.engine import StructureSpec
from workbench.server.errors import ApiError, api_error, invalid
from workbench.server.protocol.response_object import (
    FunctionCallItem,
    IncompleteDetails,
    MessageItem,
    OutputText,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from workbench.server.protocol.responses import ResponseRequest
from workbench.server.replies.answer import AnswerPart, AnswerReader
from workbench.server.replies.padding import padding_for
from workbench.server.served_model import ServedModel
from workbench.server.serving import Job, Serving
from workbench.server.token_logprobs import chat_logprobs
from workbench.server.tools import ToolCall, ToolMode, tool_grammar

__all__ = ["ResponseReply", "response_job"]

_log = logging.getLogger(__name__)


def response_job(body: ResponseRequest, model: ServedModel) -> Job:
    """The engine's side of the request."""
    structure, param = body.structure, "text"
    parts: tuple[StructureSpec, ...] = ()
    if body.choice.mode is not ToolMode.NONE:
        try:
            parts = tuple(function.structure for function in body.functions)
            structure, param = tool_grammar(body.functions, body.choice, structure), "tools"
        except ValueError as error:
            raise invalid(str(error), param="tools") from error
    conversation = body.conversation()
    return Job(lambda: [model.encode_chat(conversation)], body.sampling(structure), "input", param, parts)


class ResponseReply:
    """The answer to one request, as items that are begun, grow and are done."""

    def __init__(self, body: ResponseRequest, serving: Serving) -> None:
        self._body = body
        self._serving = serving
        self._id = f"resp_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._output: list[MessageItem | FunctionCallItem] = []
        self._num_events = 0
        self._is_cut_short = False

    async def whole(self) -> ResponseObject:
        """The answer, once it has ended."""
        async for _ in self._answer_events():
            pass
        return self._ended()

    async def events(self) -> AsyncGenerator[bytes]:
        """The answer as the events of the API; a failure is the last one of them."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        try:
            async for event in self._answer_events():
                yield event
        except Exception as error:  # the response has begun: the client can only be told here
            if not isinstance(error, ApiError):
                _log.exception("a stream failed")
            failed = self._response("failed")
            failed.error = ResponseFailure(message=api_error(error).detail)
            yield self._event("response.failed", response=failed)
            return
        ended = self._ended()
        yield self._event(f"response.{ended.status}", response=ended)

    async def _answer_events(self) -> AsyncGenerator[bytes]:
        reader = AnswerReader(self._serving.model, self._serving.job.params, self._body.choice.mode)
        async for _, chunk in self._serving:
            part = reader.read(chunk)
            if part.text or part.logprobs:
                yield b"".join(self._text_events(part))
            for call in part.calls:
                yield b"".join([*self._close_message(), *self._call_events(call)])
            if part.finish_reason is not None:
                self._is_cut_short = part.finish_reason == "length"
                if not self._output:
                    yield b"".join(self._open_message())
                yield b"".join(self._close_message())

    def _text_events(self, part: AnswerPart) -> list[bytes]:
        events = [] if self._open is not None else self._open_message()
        logprobs = chat_logprobs(part.logprobs, self._serving.model.tokens).content
        item = self._open
        assert item is not None
        text = item.content[0]
        text.text += part.text
        text.logprobs += logprobs
        place = {"item_id": item.id, "output_index": len(self._output) - 1, "content_index": 0}
        options = self._body.stream_options
        hidden = {"obfuscation": padding_for(len(part.text))} if options and options.include_obfuscation else {}
        delta = self._event("response.output_text.delta", **place, delta=part.text, logprobs=logprobs, **hidden)
        return [*events, delta]

    @property
    def _open(self) -> MessageItem | None:
        """The message that is being written."""
        last = self._output[-1] if self._output else None
        return last if isinstance(last, MessageItem) and last.status == "in_progress" else None

    def _open_message(self) -> list[bytes]:
        item = MessageItem(id=f"msg_{uuid.uuid4().hex}", status="in_progress", content=[])
        self._output.append(item)
        index = len(self._output) - 1
        added = self._event("response.output_item.added", output_index=index, item=item)
        item.content.append(OutputText(text=""))
        place = {"item_id": item.id, "output_index": index, "content_index": 0}
        return [added, self._event("response.content_part.added", **place, part=item.content[0])]

    def _close_message(self) -> list[bytes]:
        item = self._open
        if item is None:
            return []
        index, text = len(self._output) - 1, item.content[0]
        item.status = "incomplete" if self._is_cut_short else "completed"
        place = {"item_id": item.id, "output_index": index, "content_index": 0}
        return [
            self._event("response.output_text.done", **place, text=text.text, logprobs=text.logprobs),
            self._event("response.content_part.done", **place, part=text),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _call_events(self, call: ToolCall) -> list[bytes]:
        item = FunctionCallItem(
            id=f"fc_{uuid.uuid4().hex}", status="in_progress", call_id=call.call_id, name=call.name, arguments=""
        )
        self._output.append(item)
        index = len(self._output) - 1
        added = self._event("response.output_item.added", output_index=index, item=item)
        item.status, item.arguments = "completed", call.arguments
        place = {"item_id": item.id, "output_index": index}
        return [
            added,
            self._event("response.function_call_arguments.delta", **place, delta=call.arguments),
            self._event("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _ended(self) -> ResponseObject:
        response = self._response("incomplete" if self._is_cut_short else "completed")
        if self._is_cut_short:
            response.incomplete_details = IncompleteDetails(reason="max_output_tokens")
        serving = self._serving
        response.usage = ResponseUsage.of(
            serving.num_prompt_tokens, serving.num_generated_tokens, serving.num_cached_tokens
        )
        return response

    def _response(self, status: Literal["in_progress", "completed", "incomplete", "failed"]) -> ResponseObject:
        body, params = self._body, self._serving.job.params
        asked = body.model_dump(mode="json", by_alias=True, exclude_none=True, include={"tools", "tool_choice", "text"})
        return ResponseObject(
            id=self._id,
            created_at=self._created,
            status=status,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            model=self._serving.model.model_id,
            output=self._output,
            parallel_tool_calls=body.choice.parallel,
            temperature=params.temperature,
            text={"format": {"type": "text"}, **asked.get("text", {})},
            tool_choice=asked.get("tool_choice", "auto"),
            # The API wants both named, also where they were left out.
            tools=[{"parameters": None, "strict": None, **tool} for tool in asked.get("tools", [])],
            top_p=params.top_p,
            metadata=body.metadata or {},
        )

    def _event(self, event_name: str, /, **fields: Any) -> bytes:
        body = {"type": event_name, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return format_sse_event(data_str=to_json(body).decode(), event=event_name)
