"""Requests to an OpenAI-compatible endpoint, arriving as people do: at random moments, whether others are done or not.

A closed loop of clients slows down with the server and so hides its queue; here the moments are drawn beforehand.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from workbench.backends import detect
from workbench.benchmark.load_report import LoadAnswer, LoadReport
from workbench.benchmark.machine import machine_facts
from workbench.errors import ConfigError, DownloadError

__all__ = ["Load", "arrivals_s", "run_load"]

_WORDS = "river stone cloud garden engine paper winter silver morning bridge letter mountain window candle".split()
# About as many tokens as words, in most vocabularies.
_TOKENS_PER_WORD = 1.3


@dataclass(frozen=True)
class Load:
    """How much is asked of an endpoint.

    Attributes:
        rate: requests a second, on average; gaps between them are exponential (a Poisson process).
        requests: how many are sent in all.
        prompt_tokens: words that make about so many tokens; the report has what the server counted.
        new_tokens: most tokens of an answer.
        ignore_eos: ask for answers of full length. An extension that we and vLLM know, and others refuse.
        timeout_s: seconds without a byte after which an answer is given up.
        seed: of the moments and the prompts.
    """

    rate: float
    requests: int = 50
    prompt_tokens: int = 128
    new_tokens: int = 64
    ignore_eos: bool = False
    timeout_s: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rate", "requests", "prompt_tokens", "new_tokens", "timeout_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be more than 0")


def arrivals_s(load: Load) -> list[float]:
    """Seconds after the start at which each request is sent; the first at 0."""
    numbers, at_s, moments = random.Random(load.seed), 0.0, []
    for _ in range(load.requests):
        moments.append(at_s)
        at_s += numbers.expovariate(load.rate)
    return moments


def run_load(
    url: str,
    load: Load,
    *,
    model: str | None = None,
    api_key: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> LoadReport:
    """Send the load to `url` (with or without /v1) and report what came back.

    `model` is a served model's name; None asks the endpoint for its first. Raises DownloadError where the endpoint
    cannot be reached or lists no model. A request that fails is an answer with its error.
    """
    return asyncio.run(_run(_base_url(url), load, model, api_key, say))


async def _run(url: str, load: Load, model: str | None, api_key: str | None, say: Callable[[str], None]) -> LoadReport:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # The endpoint has to limit itself: a pool that is full would hold requests back here, and hide its queue.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    options: dict[str, Any] = {"timeout": load.timeout_s, "limits": limits, "trust_env": not _is_this_machine(url)}
    async with httpx.AsyncClient(base_url=url, headers=headers, **options) as client:
        model = model or await _first_model(client)
        begun_s = time.perf_counter()
        running = [
            asyncio.create_task(_request(client, load, model, number, begun_s + at_s, begun_s))
            for number, at_s in enumerate(arrivals_s(load))
        ]
        answers = []
        for done in asyncio.as_completed(running):
            answers.append(await done)
            say(f"{len(answers)} of {load.requests} answered")
        duration_s = time.perf_counter() - begun_s
    ordered = tuple(sorted(answers, key=lambda answer: answer.arrived_s))
    asked = {"rate": load.rate, "prompt_tokens": load.prompt_tokens, "new_tokens": load.new_tokens, "seed": load.seed}
    return LoadReport(url, model, asked, machine_facts(detect()), duration_s, ordered)


async def _first_model(client: httpx.AsyncClient) -> str:
    try:
        answer = await client.get("models")
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except httpx.HTTPStatusError as error:
        raise DownloadError(f"{client.base_url}models: status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise DownloadError(f"{client.base_url}models: {error or type(error).__name__}") from None
    except (ValueError, LookupError, TypeError):
        raise DownloadError(f"{client.base_url}models: lists no model") from None


async def _request(
    client: httpx.AsyncClient, load: Load, model: str, number: int, at_s: float, begun_s: float
) -> LoadAnswer:
    """One request at its moment. What goes wrong with it is in the answer: the others go on."""
    await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
    sent_s = time.perf_counter()
    came_s: list[float] = []
    usage: Mapping[str, Any] = {}
    error = None
    try:
        async with client.stream("POST", "chat/completions", json=_body(load, model, number)) as answer:
            if answer.status_code != httpx.codes.OK:
                error = f"status {answer.status_code}: {_first_words((await answer.aread()).decode(errors='replace'))}"
            else:
                async for chunk in _chunks(answer):
                    usage = chunk.get("usage") or usage
                    if _has_text(chunk):
                        came_s.append(time.perf_counter())
                    if "error" in chunk:
                        error = _first_words(json.dumps(chunk["error"]))
    except (httpx.HTTPError, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}".rstrip(": ")
    if error is None and not usage:
        error = "the stream ended without its usage"
    ended_s = time.perf_counter()
    return LoadAnswer(
        arrived_s=sent_s - begun_s,
        late_s=sent_s - at_s,
        ttft_s=came_s[0] - sent_s if came_s else None,
        total_s=ended_s - sent_s,
        gaps_s=tuple(after - before for before, after in zip(came_s, came_s[1:], strict=False)),
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        new_tokens=int(usage.get("completion_tokens", 0)),
        error=error,
    )


def _body(load: Load, model: str, number: int) -> dict[str, Any]:
    words = random.Random(f"{load.seed} {number}").choices(
        _WORDS, k=max(1, round(load.prompt_tokens / _TOKENS_PER_WORD))
    )
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": f"{number}: {' '.join(words)}"}],
        "max_tokens": load.new_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body | ({"ignore_eos": True} if load.ignore_eos else {})


async def _chunks(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each event. Raises ValueError for a stream that is none."""
    async for line in answer.aiter_lines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if not isinstance(chunk, dict):
            raise ValueError(f"an event that is no object: {_first_words(data)}")
        yield chunk


def _has_text(chunk: Mapping[str, Any]) -> bool:
    choices: Sequence[Mapping[str, Any]] = chunk.get("choices") or ()
    return any((choice.get("delta") or {}).get(key) for choice in choices for key in ("content", "reasoning_content"))


def _first_words(text: str) -> str:
    return " ".join(text.split())[:200]


def _is_this_machine(url: str) -> bool:
    """Whether a proxy of the environment must be left out: it would look for the endpoint on its own machine."""
    return httpx.URL(url).host in {"localhost", "127.0.0.1", "::1"}


def _base_url(url: str) -> str:
    url = url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"url={url!r}: must begin with http:// or https://")
    return url + ("/" if url.endswith("/v1") else "/v1/")
