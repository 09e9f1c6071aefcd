"""Whoever has already computed the longest beginning of this prompt, unless it is far busier than the others."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.errors import ConfigError
from workbench.parallel.balancers.base import Balancer, WorkerLoad
from workbench.parallel.balancers.least_loaded import LeastLoaded

__all__ = ["PrefixAffinity"]

# Pieces in which beginnings are compared. About 16 tokens each, the size of a block of the engine's prefix cache.
_PIECE_CHARACTERS = 64
_PIECE_TOKENS = 16


class PrefixAffinity(Balancer):
    """Sends a chat's next turn, or one more question about a document, to where its beginning lies in the cache.

    Affinity gives way when the worker has `max_extra_in_flight` requests more than the least loaded one. `capacity`
    bounds the remembered pieces per worker; the longest unused go first, as in the engine's own cache.
    """

    name = "prefix_affinity"

    def __init__(self, *, max_extra_in_flight: int = 4, capacity: int = 16_384) -> None:
        for field, value in (("max_extra_in_flight", max_extra_in_flight), ("capacity", capacity)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{field}={value!r}: must be an integer of at least 1")
        self._max_extra_in_flight = max_extra_in_flight
        self._capacity = capacity
        self._pieces: dict[int | str, OrderedDict[int, None]] = {}
        self._others = LeastLoaded()

    def choose(self, loads: Sequence[WorkerLoad], prompt: object = None) -> int | str:
        hashes = list(_prefix_hashes(prompt))
        fewest = min(load.num_in_flight for load in loads)
        near = [load for load in loads if load.num_in_flight < fewest + self._max_extra_in_flight]
        matches = [self._match(load.worker_id, hashes) for load in near]
        longest = max(matches)
        chosen = self._others.choose([load for load, match in zip(near, matches, strict=True) if match == longest])
        self._remember(chosen, hashes)
        return chosen

    def forget(self, worker_id: int | str) -> None:
        self._pieces.pop(worker_id, None)

    def _match(self, worker_id: int | str, hashes: list[int]) -> int:
        """Number of leading pieces that the worker has seen."""
        known: Mapping[int, None] = self._pieces.get(worker_id, {})
        return next((index for index, piece in enumerate(hashes) if piece not in known), len(hashes))

    def _remember(self, worker_id: int | str, hashes: list[int]) -> None:
        known = self._pieces.setdefault(worker_id, OrderedDict())
        # Backwards, so that a beginning outlives what follows it.
        for piece in reversed(hashes):
            known[piece] = None
            known.move_to_end(piece)
        while len(known) > self._capacity:
            known.popitem(last=False)


def _prefix_hashes(prompt: object) -> Iterator[int]:
    """One hash per whole piece, over that piece and all before it."""
    units, size = _comparable(prompt)
    chain = 0
    for end in range(size, len(units) + 1, size):
        chain = hash((chain, units[end - size : end]))
        yield chain


def _comparable(prompt: Any) -> tuple[str | tuple[object, ...], int]:
    """The prompt as something that can be cut and hashed, and the length of its pieces."""
    if prompt is None:
        return "", _PIECE_CHARACTERS
    if isinstance(prompt, str):
        return prompt, _PIECE_CHARACTERS
    items = list(prompt)
    if items and isinstance(items[0], Mapping):
        return json.dumps(items, default=str), _PIECE_CHARACTERS
    return tuple(items), _PIECE_TOKENS
