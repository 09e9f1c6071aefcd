"""What every engine of a benchmark is asked for: requests of random tokens, answered at full length."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

from workbench.errors import ConfigError

__all__ = ["Workload"]

# Reserved tokens lie at the beginning of most vocabularies.
_FIRST_PLAIN_TOKEN = 100


@dataclass(frozen=True)
class Workload:
    """Counts of requests at once, tokens a request, and runs. Raises ConfigError naming what is wrong."""

    batch_size: int = 1
    prompt_tokens: int = 128
    new_tokens: int = 64
    runs: int = 3
    warmup_runs: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "warmup_runs" else 1
            if type(value) is not int or value < least:
                raise ConfigError(f"{field.name}={value!r}: must be an integer of at least {least}")

    @property
    def context_length(self) -> int:
        """Tokens that a request may come to have, in whole blocks."""
        return -(-(self.prompt_tokens + self.new_tokens) // 64) * 64

    def prompts(self, seed: int, vocab_size: int) -> list[list[int]]:
        """Token ids of one batch; another seed gives others, so that nothing is found in a cache."""
        numbers = random.Random(seed)
        plain = range(min(_FIRST_PLAIN_TOKEN, vocab_size // 2), vocab_size)
        return [numbers.choices(plain, k=self.prompt_tokens) for _ in range(self.batch_size)]
