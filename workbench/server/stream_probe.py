"""Asks an endpoint for a few streamed tokens and looks whether they come one by one: proxies may hold them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

__all__ = ["StreamProbe", "probe_stream"]

_NUM_TOKENS = 8
# Events of a stream that was held back arrive together.
_TOGETHER_S = 0.003
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
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    body = {"prompt": "1, 2, 3,", "max_tokens": _NUM_TOKENS, "stream": True, "ignore_eos": True}
    times_s: list[float] = []
    try:
        with (
            httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", f"{base_url}/completions", params=query, json=body, headers=headers) as reply,
        ):
            if reply.status_code != 200:
                return StreamProbe(False, False, 0, _refusal(reply.status_code))
            for line in reply.iter_lines():
                if line.startswith("data:"):
                    times_s.append(clock())
    except httpx.HTTPError as error:
        return StreamProbe(False, False, 0, f"Not reached: {type(error).__name__}: {error}")
    # The last event of a stream and its [DONE] always come together.
    steps_s = [after - before for before, after in zip(times_s, times_s[1:-1], strict=False)]
    if not times_s:
        return StreamProbe(True, False, 0, "It answered with no events: this address does not stream.")
    if len(steps_s) > 1 and max(steps_s) < _TOGETHER_S:
        return StreamProbe(
            True,
            False,
            len(times_s),
            f"{len(times_s)} events came all at once: something in between holds the stream back "
            "(jupyter-server-proxy 4.4 or newer passes it on).",
        )
    return StreamProbe(True, True, len(times_s), f"Streams: {len(times_s)} events, one by one.")


def _refusal(status: int) -> str:
    words = {
        401: "the key was refused",
        403: "not allowed, a sign-in is missing",
        404: "nothing answers under this path",
        421: "the server does not answer under this host name: name it in allowed_hosts",
        503: "the server is busy or stopping",
    }.get(status, "refused")
    return f"HTTP {status}: {words}."
