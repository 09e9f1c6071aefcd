"""What a model that runs does on one GPU."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GPUUse"]


@dataclass(frozen=True)
class GPUUse:
    """Requests in flight and ever begun, and the share of its batch in use, 0 to 1."""

    num_in_flight: int = 0
    requests_total: int = 0
    load: float = 0.0
