"""Any endpoint that speaks the OpenAI API as a chat source. Knows HTTP, and nothing of who serves it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from dashboards.sources.base import ChatAsk, Messages, ReplyPiece, SourceState
from dashboards.sources.openai_wire import (
    MOST_ALTERNATIVES,
    chat_body,
    completion_body,
    scored_of_chat,
    scored_of_completion,
)
from workbench.conversation import ContextUse, ReplyFigures, ScoredToken, measure_context
from workbench.errors import ConfigError, EngineStoppedError, InferenceError, RequestError, WorkbenchError
from workbench.server.settings import is_loopback
from workbench.server.tools import Function, ToolCall

__all__ = ["EndpointSource"]

_TIMEOUT = httpx.Timeout(30.0, read=300.0)


class EndpointSource:
    """Asks the endpoint at `url` (with or without its /v1), with `api_key` where it wants one.

    `transport` takes the place of the network. Raises ConfigError for what is no address.
    """

    is_remote = True

    def __init__(
        self, url: str, api_key: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url={url!r}: must be an address such as http://127.0.0.1:8000")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=_TIMEOUT,
            # A proxy of the environment does not lead to this machine.
            trust_env=not is_loopback(parts.hostname),
            transport=transport,
        )
        self._models: dict[str, int | None] = {}
        self._words = "Not asked yet"
        self._can_count = True

    def state(self) -> SourceState:
        """What the last `refresh` found."""
        model = next(iter(self._models), "")
        return SourceState(self._words, bool(model), model=model, max_context=self._models.get(model))

    async def refresh(self) -> None:
        """Ask for the models that are served."""
        try:
            reply = await self._request("GET", "/v1/models")
            self._models = {str(m["id"]): m.get("max_model_len") for m in reply["data"]}
            self._words = "Ready" if self._models else "The endpoint serves no model now."
        except (InferenceError, ConfigError) as error:
            self._models, self._words = {}, str(error)
        except (KeyError, TypeError):
            self._models, self._words = {}, f"what answers at {self.url} is not an OpenAI-compatible endpoint"

    async def models(self) -> list[str]:
        """The endpoint's models."""
        return list(self._models)

    async def stream(self, ask: ChatAsk) -> AsyncIterator[ReplyPiece]:
        """The reply piece by piece; closing the iterator breaks the connection, which stops a good endpoint."""
        model = ask.model or self.state().model
        is_chat = ask.prompt is None
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        body = chat_body(ask, model) if is_chat else completion_body(ask, model)
        reply = _StreamedReply(model, self._models.get(model), is_chat)
        # The endpoint tells it at the end, which a reply that is stopped has not.
        counting = asyncio.ensure_future(self._count_prompt(ask, model))
        try:
            async with self._streaming(path, body) as events:
                async for event in events:
                    if counting is not None and counting.done():
                        yield ReplyPiece(num_prompt_tokens=counting.result())
                        counting = None
                    piece = reply.take(event)
                    if piece is not None:
                        yield piece
        finally:
            if counting is not None:
                counting.cancel()
        yield reply.last_piece()

    async def context_use(
        self, messages: Messages, draft: str, functions: tuple[Function, ...] = (), thinking: bool | None = None
    ) -> ContextUse | None:
        """Counted by the endpoint's /tokenize, where it has one."""
        state = self.state()
        if not (state.is_ready and state.max_context and self._can_count):
            return None
        counts: dict[str, int] = {}
        told = _told(functions, thinking)

        async def count(counted: Messages) -> None:
            body = {"model": state.model, "messages": list(counted), **told}
            counts[json.dumps(list(counted))] = (await self._request("POST", "/tokenize", body))["count"]

        try:
            system = list(messages[:1]) if messages and messages[0]["role"] == "system" else []
            await count([*system, {"role": "user", "content": ""}])
            if len(messages) > len(system):
                await count(messages)
            if draft:
                await count([*messages, {"role": "user", "content": draft}])
        except (RequestError, KeyError, TypeError):
            # One that counts, but not with these settings, is asked again when they have changed.
            self._can_count = bool(told)
            return None
        except InferenceError:
            return None
        return measure_context(lambda m: counts[json.dumps(list(m))], list(messages), draft, state.max_context)

    async def score(self, text: str, messages: Messages = (), *, num_alternatives: int = 5) -> tuple[ScoredToken, ...]:
        """Through the echo of a text completion. Raises RequestError where the endpoint has none."""
        if not text:
            raise RequestError("the text is empty: give some text to score")
        model = self.state().model
        before: list[int] = []
        if messages:
            before = (await self._request("POST", "/tokenize", {"model": model, "messages": list(messages)}))["tokens"]
        body = {"model": model, "prompt": text, "add_special_tokens": not before}
        ids = before + (await self._request("POST", "/tokenize", body))["tokens"]
        body = {"model": model, "prompt": ids, "echo": True, "max_tokens": 0}
        body["logprobs"] = min(num_alternatives, MOST_ALTERNATIVES)
        reply = await self._request("POST", "/v1/completions", body)
        return scored_of_completion(reply["choices"][0]["logprobs"])[len(before) :]

    async def read_text(self, path: str, *, any_status: bool = False) -> str:
        """What GET of a path answers. Raises InferenceError, RequestError or ConfigError for what is no success, unless
        `any_status`."""
        try:
            reply = await self._client.get(path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if not any_status:
            _check(reply.status_code, reply.text)
        return reply.text

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _count_prompt(self, ask: ChatAsk, model: str) -> int | None:
        """Tokens of the prompt, None where they can't be told: a reply that goes on is left open, which is counted
        otherwise."""
        if ask.prompt is not None or ask.continues or not (self._models.get(model) and self._can_count):
            return None
        body = {"model": model, "messages": list(ask.messages), **_told(ask.functions, ask.thinking)}
        try:
            return int((await self._request("POST", "/tokenize", body))["count"])
        except (WorkbenchError, KeyError, TypeError, ValueError):
            return None

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            reply = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        _check(reply.status_code, reply.text)
        try:
            return reply.json()
        except ValueError:
            raise InferenceError(f"{self.url}{path} did not answer with JSON") from None

    @asynccontextmanager
    async def _streaming(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        try:
            async with self._client.stream("POST", path, json=body) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    _check(reply.status_code, reply.text)
                yield _events(reply)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.HTTPError) -> EngineStoppedError:
        return EngineStoppedError(f"{self.url} cannot be reached: {error or type(error).__name__}")


class _StreamedReply:
    """Turns the events of a stream into pieces, and measures what the endpoint does not tell."""

    def __init__(self, model: str, max_context: int | None, is_chat: bool) -> None:
        self._model = model
        self._max_context = max_context
        self._is_chat = is_chat
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._last_s = self._started_s
        self._num_pieces = 0
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, list[str]] = {}
        self._is_thinking = False

    def take(self, event: dict[str, Any]) -> ReplyPiece | None:
        """The piece that an event brings, if it does."""
        if "error" in event:
            error = event["error"]
            raise InferenceError(str(error.get("message", error) if isinstance(error, dict) else error))
        self._usage = event.get("usage") or self._usage
        if not event.get("choices"):
            return None
        choice = event["choices"][0]
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta") or {}
        self._note_calls(delta.get("tool_calls") or ())
        text = self._with_thoughts(delta) if self._is_chat else choice.get("text") or ""
        if not text:
            return None
        self._last_s = time.monotonic()
        self._first_s = self._first_s or self._last_s
        self._num_pieces += 1
        read = scored_of_chat if self._is_chat else scored_of_completion
        tokens = read(choice["logprobs"]) if choice.get("logprobs") else ()
        return ReplyPiece(text=text, num_tokens=len(tokens) or 1, tokens=tokens)

    def last_piece(self) -> ReplyPiece:
        """Calls and figures, after the end."""
        num_tokens = self._usage.get("completion_tokens", self._num_pieces)
        decode_s = self._last_s - self._first_s if self._first_s else 0.0
        details = self._usage.get("prompt_tokens_details") or {}
        figures = ReplyFigures(
            model=self._model,
            finish_reason=self._finish_reason,
            num_prompt_tokens=self._usage.get("prompt_tokens"),
            num_cached_tokens=details.get("cached_tokens"),
            num_generated_tokens=num_tokens,
            ttft_s=self._first_s - self._started_s if self._first_s else None,
            total_s=time.monotonic() - self._started_s,
            tokens_per_s=(num_tokens - 1) / decode_s if num_tokens > 1 and decode_s > 0 else None,
            max_context=self._max_context,
        )
        calls = tuple(ToolCall(*parts) for _, parts in sorted(self._calls.items()))
        return ReplyPiece(calls=calls, figures=figures)

    def _with_thoughts(self, delta: dict[str, Any]) -> str:
        """Text of a piece; reasoning that comes in a field of its own is put between tags."""
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        text = delta.get("content") or ""
        if thought and not self._is_thinking:
            self._is_thinking, thought = True, f"<think>{thought}"
        if text and self._is_thinking and not thought:
            self._is_thinking, text = False, f"</think>{text}"
        return thought + text

    def _note_calls(self, deltas: Any) -> None:
        for delta in deltas:
            parts = self._calls.setdefault(delta.get("index", 0), [delta.get("id") or "", "", ""])
            function = delta.get("function") or {}
            parts[1] += function.get("name") or ""
            parts[2] += function.get("arguments") or ""


def _told(functions: tuple[Function, ...], thinking: bool | None) -> dict[str, Any]:
    """What the model is told beside the messages, as /tokenize takes it."""
    told: dict[str, Any] = {"tools": [function.as_tool() for function in functions]} if functions else {}
    if thinking is not None:
        told["chat_template_kwargs"] = {"enable_thinking": thinking}
    return told


async def _events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in reply.aiter_lines():
        if line.startswith("data:"):
            data = line[5:].strip()
            if data == "[DONE]":
                return
            yield json.loads(data)


def _check(status: int, text: str) -> None:
    """Raise what an answer that is no success says."""
    if status < 400:
        return
    try:
        error = json.loads(text)["error"]
        message = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        message = text[:200]
    if status in (401, 403):
        raise ConfigError(f"the endpoint refuses the key ({status}): {message}")
    kind = RequestError if status < 500 and status != 429 else InferenceError
    raise kind(f"the endpoint answered {status}: {message}")
