"""Random requests on a real engine, many of them aborted at a random moment: afterwards its pool must be whole."""

from __future__ import annotations

import random
from collections import Counter, deque

from workbench.engine.client import EngineClient
from workbench.engine.sampling_params import SamplingParams


def run_random_aborts(client: EngineClient, num_requests: int, *, seed: int = 0, num_at_once: int = 24) -> Counter[str]:
    """Send `num_requests` of random lengths, options and shared beginnings; how they ended, counted by reason."""
    rng = random.Random(seed)
    beginnings = [[rng.randrange(3, 200) for _ in range(length)] for length in (16, 48, 80)]
    running: deque = deque()
    ended: Counter[str] = Counter()

    def finish(generation, after_pieces: int | None) -> None:
        pieces = 0
        for _ in generation:
            pieces += 1
            if pieces == after_pieces:
                generation.abort()
        ended.update(answer.finish_reason.value for answer in generation.results())

    for _ in range(num_requests):
        prompt = rng.choice([[], *beginnings]) + [rng.randrange(3, 200) for _ in range(rng.randrange(1, 40))]
        params = SamplingParams(
            max_tokens=rng.randrange(1, 12),
            n=rng.choice([1, 1, 1, 2]),
            temperature=rng.choice([0.0, 1.0]),
            seed=rng.randrange(1000),
            ignore_eos=True,
            prompt_logprobs=rng.choice([None, None, None, None, 0]),
        )
        generation = client.submit(prompt, params)
        moment = rng.choice([None, 0, 1, 3])
        if moment == 0:
            generation.abort()
        running.append((generation, moment))
        if len(running) >= num_at_once:
            finish(*running.popleft())
    while running:
        finish(*running.popleft())
    return ended
