"""Over how many devices the attention heads of a model can be dealt out. Pure arithmetic."""

from __future__ import annotations

__all__ = ["tensor_sizes"]


def tensor_sizes(num_heads: int, num_kv_heads: int) -> list[int]:
    """Over how many ranks these heads can be dealt out: evenly, each KV head to one rank or copied to several."""
    return [
        size
        for size in range(1, num_heads + 1)
        if num_heads % size == 0 and (num_kv_heads % size == 0 or size % num_kv_heads == 0)
    ]
