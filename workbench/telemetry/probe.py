"""What the sampler asks of a probe. A probe reads; it keeps no history and starts no thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Probe"]


class Probe(Protocol):
    """Reads numbers now. Names end in their unit: `process_memory_bytes`, `generated_tokens_per_s`."""

    def read(self) -> Mapping[str, float]:
        """Series name -> value. A number that can't be had now is left out, not sent as zero."""
        ...
