"""Sizes that kernels and the host's packing of their inputs must agree on. Loads no Triton."""

from __future__ import annotations

__all__ = ["CHUNK_QUERIES", "GUESS_QUERIES"]

# Queries of one tile of a prompt chunk; times the heads that share a KV head these are the rows of one product.
CHUNK_QUERIES = 32
# The same of an answer's next token and guesses after it.
GUESS_QUERIES = 8
