"""Asks an endpoint for a few streamed tokens and looks whether they come one by one: proxies may hold them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

__all__ = ["StreamProbe", "probe_stream"]

_NUM_TOKENS = 8
# Events of a stream that was held back arrive together; so do those of a small model on a GPU. Of a longer stream the
# events then take up most of the time since it was asked for, unless they were held back.
_TOGETHER_S = 0.003
_MORE_TOKENS, _STREAMED_SHARE = 96, 0.3
_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class StreamProbe:
    """What came of it. `is_streaming` is False where all events came at once; `message` says it in words."""

    is_reached: bool
    is_streaming: bool
    num_events: int
    message: str


def probe_stream(
    base_url: str,
    api_key: str | None,
    *,
    query: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StreamProbe:
    """Stream a short reply from the OpenAI-compatible `base_url` (ending in /v1) and time its events. Never raises
    for what the network or the server does: the message says it."""
    # By this word Jupyter's proxy knows a stream.
    headers = {"accept": "text/event-stream"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})
    try:
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False, params=query, headers=headers) as client:
            times_s = _event_times(client, base_url, _NUM_TOKENS, clock)
            is_together = _longest_step_s(times_s) < _TOGETHER_S
            if is_together and _NUM_TOKENS < len(times_s):
                asked_s = clock()
                is_together = not _fill(asked_s, _event_times(client, base_url, _MORE_TOKENS, clock))
    except _RefusedError as refusal:
        return StreamProbe(False, False, 0, _refusal(refusal.status))
    except httpx.HTTPError as error:
        return StreamProbe(False, False, 0, f"Not reached: {type(error).__name__}: {error}")
    if not times_s:
        return StreamProbe(True, False, 0, "It answered with no events: this address does not stream.")
    if is_together:
        return StreamProbe(
            True,
            False,
            len(times_s),
            f"{len(times_s)} events came all at once: something in between holds the stream back "
            "(jupyter-server-proxy 4.4 or newer passes it on to calls with `Accept: text/event-stream`, as this one).",
        )
    return StreamProbe(True, True, len(times_s), f"Streams: {len(times_s)} events, one by one.")


class _RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _event_times(client: httpx.Client, base_url: str, num_tokens: int, clock: Callable[[], float]) -> list[float]:
    body = {"prompt": "1, 2, 3,", "max_tokens": num_tokens, "stream": True, "ignore_eos": True}
    with client.stream("POST", f"{base_url}/completions", json=body) as reply:
        if reply.status_code != 200:
            raise _RefusedError(reply.status_code)
        return [clock() for line in reply.iter_lines() if line.startswith("data:")]


def _longest_step_s(times_s: list[float]) -> float:
    """Between two events; without the last, since the end of a stream and its [DONE] always come together. Of one event
    nothing is known."""
    steps_s = [after - before for before, after in zip(times_s, times_s[1:-1], strict=False)]
    return max(steps_s) if len(steps_s) > 1 else _TOGETHER_S


def _fill(asked_s: float, times_s: list[float]) -> bool:
    """Whether events came during much of the time since they were asked for."""
    return bool(times_s) and times_s[-1] - times_s[0] > _STREAMED_SHARE * (times_s[-1] - asked_s)


def _refusal(status: int) -> str:
    words = {
        401: "the key was refused",
        403: "not allowed, a sign-in is missing",
        404: "nothing answers under this path",
        421: "the server does not answer under this host name: name it in allowed_hosts",
        503: "the server is busy or stopping",
    }.get(status, "refused")
    return f"HTTP {status}: {words}."
