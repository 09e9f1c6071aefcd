"""Fits, tight or does not fit."""

from __future__ import annotations

from enum import Enum

__all__ = ["Verdict", "judge"]

# Less spare than this share of what is available is tight: other processes and estimates move by as much.
_TIGHT_SHARE = 0.1


class Verdict(Enum):
    """How a need compares with what is available."""

    FITS = "fits"
    TIGHT = "tight"
    DOES_NOT_FIT = "does not fit"


def judge(needed_bytes: int, available_bytes: int) -> Verdict:
    """The verdict on one device."""
    spare = available_bytes - needed_bytes
    if spare < 0:
        return Verdict.DOES_NOT_FIT
    return Verdict.TIGHT if spare < _TIGHT_SHARE * available_bytes else Verdict.FITS
