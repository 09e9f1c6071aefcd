"""Which KV block belongs to whom: allocation, sharing of equal prefixes, eviction. Block ids only, no tensors.

A block holds `block_size` consecutive tokens. A full block is known by a key that covers its tokens and all before
them, so two sequences that begin alike can share it. A freed block keeps its content until it is needed again.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["BlockPool", "PrefixMatch", "chain_key"]


def chain_key(previous: bytes, token_ids: Sequence[int]) -> bytes:
    """Key of a full block, 16 bytes: a hash over its tokens and the key of the block before it."""
    return hashlib.blake2b(array("q", token_ids).tobytes(), digest_size=16, key=previous).digest()


@dataclass(frozen=True)
class PrefixMatch:
    """Blocks that already hold the beginning of a sequence, and how many of them are in use by somebody else."""

    block_ids: tuple[int, ...]
    num_in_use: int


class BlockPool:
    """Reference-counted blocks `0 .. num_blocks-1`; unused ones wait in least-recently-used order."""

    def __init__(self, num_blocks: int, block_size: int, enable_prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._ref_counts = [0] * num_blocks
        # Free blocks, the next to be reused first. Those with a key are still good for a prefix match.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._key_of_block: dict[int, bytes] = {}
        self._block_of_key: dict[bytes, int] = {}

    @property
    def num_free_blocks(self) -> int:
        return len(self._free)

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - len(self._free)

    def match_prefix(self, keys: Iterable[bytes]) -> PrefixMatch:
        """Longest run of blocks known by `keys`, from the first on. Changes nothing."""
        block_ids: list[int] = []
        if self.enable_prefix_caching:
            for key in keys:
                block_id = self._block_of_key.get(key)
                if block_id is None:
                    break
                block_ids.append(block_id)
        return PrefixMatch(tuple(block_ids), sum(self._ref_counts[b] > 0 for b in block_ids))

    def can_allocate(self, num_blocks: int) -> bool:
        return num_blocks <= len(self._free)

    def allocate(self, num_blocks: int) -> list[int]:
        """Take blocks for new content; what they held is forgotten."""
        assert self.can_allocate(num_blocks)
        taken = []
        for _ in range(num_blocks):
            block_id, _ = self._free.popitem(last=False)
            self._forget(block_id)
            self._ref_counts[block_id] = 1
            taken.append(block_id)
        return taken

    def share(self, block_ids: Iterable[int]) -> None:
        """Hold matched blocks too, whether somebody else uses them or they wait to be reused."""
        for block_id in block_ids:
            if self._ref_counts[block_id] == 0:
                del self._free[block_id]
            self._ref_counts[block_id] += 1

    def free(self, block_ids: Sequence[int]) -> None:
        """Let go of a sequence's blocks. Its last ones are reused first, since fewer prompts share them."""
        for block_id in reversed(block_ids):
            self._ref_counts[block_id] -= 1
            if self._ref_counts[block_id] == 0:
                self._free[block_id] = None
                if block_id not in self._key_of_block:
                    self._free.move_to_end(block_id, last=False)

    def remember(self, block_id: int, key: bytes) -> None:
        """Make a full, computed block findable. Of two equal blocks the first stays the known one."""
        if self.enable_prefix_caching and key not in self._block_of_key and block_id not in self._key_of_block:
            self._block_of_key[key] = block_id
            self._key_of_block[block_id] = key

    def check_integrity(self, held: Iterable[Sequence[int]]) -> None:
        """Raise AssertionError unless the blocks `held` by live sequences, and no others, are in use."""
        counts = [0] * self.num_blocks
        for block_ids in held:
            for block_id in block_ids:
                counts[block_id] += 1
        assert counts == self._ref_counts, "reference counts do not match the sequences' blocks"
        assert all((count == 0) == (b in self._free) for b, count in enumerate(counts)), "a block leaked"
        assert all(self._block_of_key[key] == b for b, key in self._key_of_block.items()), "keys are inconsistent"
        assert len(self._key_of_block) == len(self._block_of_key), "keys are inconsistent"

    def _forget(self, block_id: int) -> None:
        key = self._key_of_block.pop(block_id, None)
        if key is not None:
            del self._block_of_key[key]
