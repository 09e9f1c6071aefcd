"""Records the steps of a running engine while it answers copies of one prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.engine import Generation
from workbench.errors import ConfigError
from workbench.telemetry import StepProfile

if TYPE_CHECKING:
    from workbench.distributed.pooled_client import PooledClient
    from workbench.engine.client import EngineClient

__all__ = ["profiled_prompt", "record_profile"]

_PROMPT_TOKENS = 128
# A trace of more steps than this grows past what a browser opens.
_MOST_TRACED_TOKENS = 16


def profiled_prompt(vocab_size: int) -> list[int]:
    """Ids that lie apart, so that they look like no special token run."""
    return [(7919 * (i + 1)) % vocab_size for i in range(_PROMPT_TOKENS)]


def record_profile(
    client: EngineClient | PooledClient,
    submit: Callable[..., Generation],
    prompt_token_ids: Sequence[int],
    *,
    batch: int,
    max_tokens: int,
    operations: bool,
) -> StepProfile:
    """The split of each step, timed by itself; with `operations` from a second recording under torch's profiler."""
    for name, count in (("batch", batch), ("max_tokens", max_tokens)):
        if type(count) is not int or count < 1:
            raise ConfigError(f"{name}={count!r}: must be an integer of at least 1")
    split = _recorded(client, submit, prompt_token_ids, batch, max_tokens, False)
    if not operations:
        return split
    detailed = _recorded(client, submit, prompt_token_ids, batch, min(max_tokens, _MOST_TRACED_TOKENS), True)
    return replace(detailed, steps=split.steps)


def _recorded(
    client: EngineClient | PooledClient,
    submit: Callable[..., Generation],
    prompt_token_ids: Sequence[int],
    batch: int,
    max_tokens: int,
    with_operations: bool,
) -> StepProfile:
    client.start_profile(with_operations=with_operations)
    try:
        # The salt keeps the prompt from being found in the cache, where it would take no time.
        options = {"max_tokens": max_tokens, "ignore_eos": True, "cache_salt": os.urandom(8).hex()}
        running = [submit(list(prompt_token_ids), **options) for _ in range(batch)]
        for generation in running:
            generation.result()
    finally:
        profile = client.stop_profile()
    return profile
