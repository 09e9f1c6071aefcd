"""The block pool: who holds which block, what can be found again, and what is reused first."""

from __future__ import annotations

import random

import pytest

from workbench.engine.kv_cache import BlockPool, PrefixMatch, chain_key


def keys_of(token_ids, block_size=4):
    keys, previous = [], b""
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        previous = chain_key(previous, token_ids[start : start + block_size])
        keys.append(previous)
    return keys


def fill(pool, token_ids):
    """Blocks for a sequence of whole blocks, computed and findable."""
    keys = keys_of(token_ids, pool.block_size)
    block_ids = pool.allocate(len(keys))
    for block_id, key in zip(block_ids, keys, strict=True):
        pool.remember(block_id, key)
    return block_ids


def test_a_key_covers_the_block_and_all_before_it():
    assert chain_key(b"", [1, 2]) == chain_key(b"", [1, 2])
    assert len({chain_key(b"", [1, 2]), chain_key(b"", [2, 1]), chain_key(b"", [1, 2, 0]), chain_key(b"", [258])}) == 4
    one, other = keys_of([1, 2, 3, 4, 5, 6, 7, 8]), keys_of([9, 2, 3, 4, 5, 6, 7, 8])
    assert one[0] != other[0] and one[1] != other[1]


def test_the_longest_known_beginning_is_found_and_nothing_changes():
    pool = BlockPool(8, 4)
    held = fill(pool, list(range(12)))
    keys = keys_of([*range(8), 99, 98, 97, 96])
    assert pool.match_prefix(keys) == PrefixMatch(tuple(held[:2]), num_in_use=2)
    pool.free(held[1:])
    assert pool.match_prefix(keys) == PrefixMatch(tuple(held[:2]), num_in_use=1)
    pool.check_integrity([held[:1]])


def test_a_gap_ends_the_match():
    pool = BlockPool(3, 4)
    held = fill(pool, list(range(12)))
    pool.free(held)
    # The last block is reused first, then the one before: the beginning stays known longest.
    pool.allocate(1)
    assert pool.match_prefix(keys_of(list(range(12)))).block_ids == tuple(held[:2])


def test_shared_blocks_are_free_when_the_last_holder_lets_go():
    pool = BlockPool(4, 4)
    held = fill(pool, list(range(8)))
    pool.share(held)
    pool.free(held)
    assert pool.num_free_blocks == 2
    pool.free(held)
    assert pool.num_free_blocks == 4
    pool.share(held)
    pool.check_integrity([held])


def test_blocks_that_nobody_can_find_are_reused_before_those_that_can_be_found():
    pool = BlockPool(4, 4)
    known = fill(pool, list(range(8)))
    pool.free(known)
    nameless = pool.allocate(2)
    pool.free(nameless)
    assert set(pool.allocate(2)) == set(nameless)
    assert len(pool.match_prefix(keys_of(list(range(8)))).block_ids) == 2


def test_the_least_recently_used_content_goes_first():
    pool = BlockPool(2, 4)
    first, second = fill(pool, [1] * 4), fill(pool, [2] * 4)
    pool.free(first)
    pool.free(second)
    pool.share(first)
    pool.free(first)
    pool.allocate(1)
    assert pool.match_prefix(keys_of([1] * 4)).block_ids == tuple(first)
    assert pool.match_prefix(keys_of([2] * 4)).block_ids == ()


def test_of_two_equal_blocks_the_first_stays_the_known_one():
    pool = BlockPool(4, 4)
    first, second = fill(pool, [1] * 4), fill(pool, [1] * 4)
    assert pool.match_prefix(keys_of([1] * 4)).block_ids == tuple(first)
    pool.free(second)
    pool.check_integrity([first])


def test_without_prefix_caching_nothing_is_found():
    pool = BlockPool(4, 4, enable_prefix_caching=False)
    fill(pool, [1] * 4)
    assert pool.match_prefix(keys_of([1] * 4)) == PrefixMatch((), 0)


def test_integrity_notices_leaked_and_wrongly_held_blocks():
    pool = BlockPool(4, 4)
    held = pool.allocate(2)
    for wrong in ([], [held, held[:1]], [[held[0], 3]]):
        with pytest.raises(AssertionError):
            pool.check_integrity(wrong)
    pool.check_integrity([held])


@pytest.mark.parametrize("seed", range(20))
def test_random_use_keeps_the_books(seed):
    rng = random.Random(seed)
    pool = BlockPool(rng.randrange(4, 20), 2, enable_prefix_caching=rng.random() < 0.9)
    content: dict[int, bytes] = {}
    held: list[list[int]] = []
    for _ in range(400):
        if held and rng.random() < 0.45:
            pool.free(held.pop(rng.randrange(len(held))))
        else:
            keys = keys_of([rng.randrange(2) for _ in range(2 * rng.randrange(1, 5))], 2)
            match = pool.match_prefix(keys)
            assert [content[b] for b in match.block_ids] == keys[: len(match.block_ids)]
            num_new = len(keys) - len(match.block_ids)
            if not pool.can_allocate(len(keys) - match.num_in_use):
                continue
            pool.share(match.block_ids)
            new = pool.allocate(num_new)
            content.update(zip(new, keys[len(match.block_ids) :], strict=True))
            held.append([*match.block_ids, *new])
            for block_id in new:
                pool.remember(block_id, content[block_id])
        pool.check_integrity(held)
        assert pool.num_used_blocks + pool.num_free_blocks == pool.num_blocks
