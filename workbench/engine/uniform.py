"""The random number behind each sampled token: a function of seed and position alone, so batches cannot matter."""

from __future__ import annotations

__all__ = ["mix", "uniform"]

_MASK = 2**64 - 1


def mix(value: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(seed: int, index: int, position: int) -> float:
    """A number in [0, 1) for answer `index` of a request and the token at `position`."""
    return (mix(mix(mix(seed & _MASK) ^ index) ^ position) >> 11) * 2.0**-53
